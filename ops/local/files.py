"""Files of the data folder: written whole and for our eyes only, and locks that a dead owner cannot keep."""

import fcntl
import os
import pwd
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
# Root's PostgreSQL runs as another user, who has to pass through the data folder to its own.
PASSABLE_FOLDER = 0o711


class NotOurs(Exception):
    """The data folder is another user's. The message says whose, and what to do."""


class InUse(Exception):
    """Another process holds this lock."""


def make_folder(folder: Path, mode: int) -> None:
    """Make `folder` with exactly this mode. A folder that exists keeps the mode it has."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


def refuse_another_users(folder: Path) -> None:
    """Raise NotOurs where another user has started on this folder, or may alone write to it.

    Root is refused as well: what it would write there, that user could never read again.
    """
    made_by = next((path.stat().st_uid for path in (folder / "nats.password", folder / "logs") if path.exists()), None)
    if made_by is not None and made_by != os.geteuid():
        raise NotOurs(
            f"{folder} is the data folder of user {user_name(made_by)}, and you are {user_name(os.geteuid())}: start "
            "as that user, or give this one its own DATA_DIR"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotOurs(f"{user_name(os.geteuid())} may not write to {folder}: choose another DATA_DIR")


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone: no reader sees half of it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class FileLock:
    """A lock that the kernel drops with its holder; the file goes away when it is released."""

    def __init__(self, path: Path) -> None:
        """Take the lock at once, or raise InUse."""
        self._path = path
        self._fd = self._taken()

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _taken(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise InUse(str(self._path)) from None
            if self._is_still_the_file(fd):
                return fd
            # Its last holder removed the file after we had opened it: what we locked guards nothing.
            os.close(fd)

    def _is_still_the_file(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

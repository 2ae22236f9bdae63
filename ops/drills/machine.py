"""What a drill does to the machine itself, as root: a disk whose power can be cut, and networks that can be parted."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXT4_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`."""
LOSE_WHAT_IS_NOT_SYNCED = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: neither data nor journal are written any more, as when the power fails."""


class NotAllowed(Exception):
    """This machine does not let us: no root, a program missing, or a kernel without it. The message says which."""


def require_root(*programs: str) -> None:
    """Raises NotAllowed unless we are root and have these programs."""
    if os.geteuid() != 0:
        raise NotAllowed("needs root")
    if missing := [program for program in programs if not shutil.which(program)]:
        raise NotAllowed(f"needs {', '.join(missing)}")


class Disk:
    """An ext4 file system of its own in a file, mounted at `place`."""

    def __init__(self, folder: Path, megabytes: int = 3072) -> None:
        """Raises NotAllowed."""
        require_root("mkfs.ext4", "mount", "umount")
        self.place = folder / "disk"
        self._image = folder / "disk.image"
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        command("mkfs.ext4", "-q", str(self._image))
        self.mount()
        self.place.chmod(0o711)

    def mount(self) -> None:
        """Mount it."""
        command("mount", "-o", "loop", str(self._image), str(self.place))

    def mount_again(self) -> None:
        """After a cut: its journal is replayed, and what was synced is there."""
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        """Unmount it; nobody may have a file open there."""
        command("umount", str(self.place))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and what was not synced before is lost. Raises NotAllowed."""
        folder = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_SHUTDOWN, struct.pack("I", LOSE_WHAT_IS_NOT_SYNCED))
        except OSError as error:
            raise NotAllowed(f"this kernel cannot shut a file system down ({error.strerror})") from error
        finally:
            os.close(folder)


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """A disk for as long as it is needed. Raises NotAllowed."""
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.unmount()


class Island:
    """A network namespace that reaches ours over several cables, each of which can be cut and joined again.

    Cable `number` has our end at 10.77.<number>.1 and the island's at 10.77.<number>.2.
    """

    def __init__(self, name: str, cables: int) -> None:
        """Raises NotAllowed."""
        require_root("ip")
        self.name = name
        self.cables = range(1, cables + 1)
        self._left_over()
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")
        for number in self.cables:
            ours, theirs = f"{name}{number}a", f"{name}{number}b"
            command("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
            command("ip", "address", "add", f"{self.here(number)}/30", "dev", ours)
            command("ip", "-n", name, "address", "add", f"10.77.{number}.2/30", "dev", theirs)
            command("ip", "link", "set", ours, "up")
            command("ip", "-n", name, "link", "set", theirs, "up")

    @property
    def entrance(self) -> list[str]:
        """The words before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def here(self, number: int) -> str:
        """Our address on a cable."""
        return f"10.77.{number}.1"

    def there(self, number: int) -> str:
        """The island's address on a cable."""
        return f"10.77.{number}.2"

    def cut(self, number: int) -> None:
        """From now on packets vanish on this cable, without a word to either side."""
        # Our end only: the island's keeps its route, so that its packets are lost instead of refused.
        command("ip", "link", "set", f"{self.name}{number}a", "down")

    def join(self, number: int) -> None:
        """Let packets pass again."""
        command("ip", "link", "set", f"{self.name}{number}a", "up")

    def sink(self) -> None:
        """Remove it with its cables. Its processes must have ended."""
        command("ip", "netns", "delete", self.name)

    def _left_over(self) -> None:
        """Clear away what a drill that was killed left behind."""
        if (Path("/run/netns") / self.name).exists():
            self.sink()


def command(*words: str) -> None:
    """Run a program of the system. Raises NotAllowed with its complaint."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    if done.returncode != 0:
        raise NotAllowed(f"{' '.join(words[:3])}: {done.stderr.strip()}")

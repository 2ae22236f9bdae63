"""The tiny program between the supervisor and each child: it ties the child's life to the supervisor's.

    python -I -S guarded.py PARENT_PID LAST_SIGNAL UID GID program [arguments]

It becomes the program (same pid). Where the kernel can (Linux), the program gets LAST_SIGNAL the moment
PARENT_PID dies, however it dies. A UID other than -1 is taken on first, and then the program must be given by its
path, for that user may not be able to read what Python needs to search for it. 127 means it could not be run.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
NOT_RUN = 127


def take_on(uid: int, gid: int) -> None:
    """Become that user for good; needs root."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def tie_to_parent(parent: int, last_signal: int) -> None:
    """Ask the kernel for `last_signal` when `parent` ends; exit at once if it already has."""
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, last_signal, 0, 0, 0) != 0:
        sys.exit("guarded: the kernel refused PR_SET_PDEATHSIG")
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        sys.exit("guarded: the supervisor is gone")


def main(argv: list[str]) -> None:
    parent, last_signal, uid, gid = map(int, argv[:4])
    program = argv[4:]
    if uid != -1:
        take_on(uid, gid)
    # After the change of user, because the kernel forgets the death signal with the old user.
    tie_to_parent(parent, last_signal)
    try:
        os.execvp(program[0], program)  # noqa: S606
    except OSError as error:
        print(f"guarded: {program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])

"""One look at process trees: the CPU time and memory of each listed process with its children."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil


class Sample(NamedTuple):
    """CPU seconds since the tree began, children that exited included, and resident bytes now.

    Pages that processes share, as PostgreSQL's do its buffers, count once: as the largest share among them.
    """

    cpu_s: float
    rss: int


def read_trees(roots: Sequence[int]) -> dict[int, Sample]:
    """A sample for each of the pids that runs. A root below another root is counted as itself only."""
    alive: dict[int, psutil.Process] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        alive[process.pid] = process
        if process.pid not in roots:
            children[process.info["ppid"]].append(process.pid)
    return {root: _sample(alive, _tree(root, children)) for root in roots if root in alive}


def _tree(root: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield root
    for child in children.get(root, ()):
        yield from _tree(child, children)


def _sample(alive: dict[int, psutil.Process], tree: Iterator[int]) -> Sample:
    cpu, own, shared = 0.0, 0, 0
    for pid in tree:
        try:
            with alive[pid].oneshot():
                times, memory = alive[pid].cpu_times(), alive[pid].memory_info()
        except psutil.NoSuchProcess:
            continue  # its time turns up in its parent's children
        cpu += times.user + times.system + times.children_user + times.children_system
        common = getattr(memory, "shared", 0)
        own += memory.rss - common
        shared = max(shared, common)
    return Sample(cpu, own + shared)

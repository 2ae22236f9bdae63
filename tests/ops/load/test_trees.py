"""A look at process trees."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ops.load.trees import read_trees

# A parent with a child that burns CPU and exits, and one that stays and holds memory.
PARENT = """
import subprocess, sys
burn = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", burn], check=True)
hold = "held = bytearray(b'x' * 60_000_000); print(flush=True); import sys; sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def family() -> Iterator[tuple[int, int]]:
    """The pids of a parent and of its child."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())


def test_the_time_of_a_child_that_exited_counts(family: tuple[int, int]) -> None:
    parent, _ = family
    assert read_trees([parent])[parent].cpu_s >= 0.3


def test_the_memory_of_a_child_counts(family: tuple[int, int]) -> None:
    parent, _ = family
    assert read_trees([parent])[parent].rss > 60_000_000


def test_a_child_that_is_listed_itself_is_not_counted_twice(family: tuple[int, int]) -> None:
    parent, child = family
    samples = read_trees([parent, child])
    assert samples[child].rss > 60_000_000
    assert samples[parent].rss < 60_000_000


def test_a_process_that_is_not_there_has_no_sample(family: tuple[int, int]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    assert set(read_trees([os.getpid(), gone.pid])) == {os.getpid()}

"""Every mutation finds what it breaks in the code as it is now, and one that does not says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops.drills import mutant
from ops.drills.mutant import MUTATIONS
from ops.drills.mutations import MUTATIONS as ACTS

RAN = "print('ran as', __name__)\n"


def started(tmp_path: Path, names: str) -> subprocess.CompletedProcess[str]:
    """A mutant whose worker is a module that says that it was run."""
    (tmp_path / "worker.py").write_text(RAN)
    path = f"{tmp_path}:{Path.cwd()}"
    return subprocess.run(
        [sys.executable, "-m", "ops.drills.mutant", names, "worker"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": path},
        timeout=60,
    )


def test_every_mutation_fits_the_code_and_the_worker_runs_with_it(tmp_path: Path) -> None:
    ended = started(tmp_path, ",".join(MUTATIONS))
    assert (ended.returncode, ended.stdout) == (0, "ran as __main__\n"), ended.stderr


@pytest.mark.parametrize(
    ("module", "path"),
    [("workers.delivery", "delivers"), ("workers.sweeper", "Sweeper._drives"), ("workers.sweeper", "Broom._drive")],
)
def test_a_mutation_that_no_longer_fits_ends_the_process(module: str, path: str) -> None:
    with pytest.raises(SystemExit, match=f"{module}.{path} is not what this mutation breaks"):
        mutant._replace(module, path, None)


def test_every_mutation_is_tried_in_an_act() -> None:
    tried = {name for act in ACTS for name in (act.breaks, *act.always.split(",")) if name}
    assert tried == set(MUTATIONS)

"""What the tests of the local servers and the supervisor share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ops.local.run_file import RunFile
from ops.local.supervisor import Supervisor
from tests.ops.local.watching import Told, passable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with passable_folder() as path:
        yield path


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def supervisor(tmp_path: Path, told: Told) -> AsyncIterator[Supervisor]:
    made = Supervisor(RunFile(tmp_path / "run.json"), told)
    yield made
    made.kill()
    await made.stop()

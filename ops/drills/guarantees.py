"""What the guarantees cost: tokens per CPU-second of this checkout beside the spine's, both measured in one run.

The spine is the revision before resume, stop, fairness and healing were complete. It is unpacked from git, started
with this interpreter, and driven by the same load, in alternation, so that whatever else the machine does hits both.
Broken where the median costs more than a quarter.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ops.drills.__main__ import NOT_RUN
from ops.drills.stack import KEY, Stack, run
from ops.local.launch_settings import PROJECT

SPINE = "6885798"
ALLOWED = 0.25
POOLS = ""
"""One process a stage: what is compared is the path, not the pools."""


def main(argv: Sequence[str]) -> int:
    """Measure, print, and say whether the cost is within what is allowed."""
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="cozy-spine-") as folder:
        try:
            _unpack(options.spine, Path(folder))
        except subprocess.CalledProcessError as error:
            print(f"not run: git does not have {options.spine}: {error.stderr.decode().strip()}")
            return NOT_RUN
        return run(_compare(options, Path(folder)))


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.drills guarantees", description=__doc__)
    parser.add_argument("--spine", default=SPINE, help="the git revision to compare with (%(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="of 100 tokens, in each run (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=20, help="%(default)s")
    parser.add_argument("--runs", type=int, default=3, help="of each of the two (%(default)s)")
    return parser.parse_args(argv)


def _unpack(revision: str, folder: Path) -> None:
    git = ["git", "-C", str(PROJECT), "archive", revision]
    packed = subprocess.run(git, check=True, capture_output=True).stdout  # noqa: S603  # our own words, and a revision
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


async def _compare(options: argparse.Namespace, spine: Path) -> int:
    measured: dict[str, list[float]] = {"spine": [], "guaranteed": []}
    for number in range(options.runs):
        for name, project in (("spine", spine), ("guaranteed", PROJECT)):
            figure = await _measure(options, project)
            measured[name].append(figure)
            print(f"run {number + 1}  {name:<12}{figure:>9.0f} tokens per CPU-second", flush=True)
    before, after = (statistics.median(measured[name]) for name in ("spine", "guaranteed"))
    cost = 1 - after / before
    print(f"\nmedian  spine {before:.0f}, guaranteed {after:.0f}")
    print(f"the guarantees cost {cost:.1%} (at most {ALLOWED:.0%})")
    return 0 if cost <= ALLOWED else 1


async def _measure(options: argparse.Namespace, project: Path) -> float:
    own_config = {"COZY_CONFIG_DIR": str(project / "ops" / "config")}
    async with Stack(own_config, pools=POOLS, project=project) as stack:
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.load.chat", "--url", stack.url, "--key", KEY, "--json", "--warmup", "200"),
            *("--requests", str(options.requests), "--concurrency", str(options.concurrency)),
            *("--run-json", str(stack.data / "run.json")),
            cwd=PROJECT,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await load.communicate()
    report = msgspec.json.decode(printed)
    if report["target"]["failed"]:
        raise SystemExit(f"{report['target']['failed']} requests failed: no figure")
    return float(report["processes"]["tokens_per_cpu_s"])

"""CPU and memory of the processes under load, as the operating system counts them."""

import asyncio
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

from ops.load.trees import Sample, read_trees

PERIOD_SECONDS = 0.5
KB = 1024

# The model server stands in for somebody else's machine, so it is shown but not summed.
UPSTREAM = "scripted"
GATEWAY = "gateway"


class Listed(msgspec.Struct, frozen=True):
    """One entry of run.json."""

    name: str
    pid: int
    url: str | None = None


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One listed process with its children. `gone`: it was not there, or not to the end; the rest is a floor."""

    name: str
    pid: int
    cpu_s: float
    rss_before_kb: float
    rss_peak_kb: float
    rss_after_kb: float
    gone: bool


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    """All of them. `ours_` sums everything but the scripted model server, NATS and PostgreSQL included.

    `gateway_kb_per_stream` is the gateway's growth, peak RSS less that before, over the peak of open streams.
    """

    each: list[ProcessFigures]
    ours_cpu_s: float
    ours_rss_peak_kb: float
    tokens_per_cpu_s: float | None
    gateway_kb_per_stream: float | None


def listed(path: Path) -> list[Listed]:
    """The entries of a run.json. Raises OSError or msgspec.DecodeError when it cannot be read."""
    return msgspec.json.decode(path.read_bytes(), type=list[Listed])


class Watch:
    """Samples processes while entered, twice a second, and adds up over several entries. To be closed.

    A process of its own looks: a look takes milliseconds that streams must not wait for, and a thread would
    fight for the interpreter with each of the hundreds of files it reads.
    """

    def __init__(self, entries: Sequence[Listed], period: float = PERIOD_SECONDS) -> None:
        self._entries = entries
        self._period = period
        self._pids = [entry.pid for entry in entries]
        self._ours = [entry.pid for entry in entries if UPSTREAM not in entry.name]
        self._gateways = [entry.pid for entry in entries if GATEWAY in entry.name]
        self._before: dict[int, Sample] = {}
        self._last: dict[int, Sample] = {}
        self._gone: set[int] = set()
        self._cpu = dict.fromkeys(self._pids, 0.0)
        self._peak = dict.fromkeys(self._pids, 0)
        self._ours_peak = 0
        self._gateway_peak = 0
        self._looker = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            # Ctrl-C reaches the whole group; the looker ends when we do.
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )

    async def __aenter__(self) -> None:
        # The first sample of an entry only says where counting starts.
        self._last = {}
        await self._take()
        self._before = self._before or dict(self._last)
        self._task = asyncio.create_task(self._keep_taking())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()  # it only ends by itself when it cannot look
        await self._take()

    def close(self) -> None:
        """End the process that looks."""
        self._looker.shutdown()

    def processes(self, tokens: int, streams: int) -> Processes:
        """The figures, for so many streamed tokens and at most so many open streams."""
        ours_cpu = sum(self._cpu[pid] for pid in self._ours)
        growth = (self._gateway_peak - self._sum(self._before, self._gateways)) / KB
        return Processes(
            each=[self._figures(entry) for entry in self._entries],
            ours_cpu_s=ours_cpu,
            ours_rss_peak_kb=self._ours_peak / KB,
            tokens_per_cpu_s=tokens / ours_cpu if ours_cpu else None,
            gateway_kb_per_stream=growth / streams if self._gateways and streams else None,
        )

    async def _keep_taking(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            await self._take()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        samples = await loop.run_in_executor(self._looker, read_trees, self._pids)
        for pid, sample in samples.items():
            # Never backwards: an exited child's time is away until its parent has reaped it.
            last = self._last.get(pid, sample)
            self._cpu[pid] += max(0.0, sample.cpu_s - last.cpu_s)
            self._peak[pid] = max(self._peak[pid], sample.rss)
            self._last[pid] = sample if sample.cpu_s >= last.cpu_s else sample._replace(cpu_s=last.cpu_s)
        self._gone.update(pid for pid in self._pids if pid not in samples)
        self._ours_peak = max(self._ours_peak, self._sum(samples, self._ours))
        self._gateway_peak = max(self._gateway_peak, self._sum(samples, self._gateways))

    def _figures(self, entry: Listed) -> ProcessFigures:
        none = Sample(0.0, 0)
        return ProcessFigures(
            name=entry.name,
            pid=entry.pid,
            cpu_s=self._cpu[entry.pid],
            rss_before_kb=self._before.get(entry.pid, none).rss / KB,
            rss_peak_kb=self._peak[entry.pid] / KB,
            rss_after_kb=self._last.get(entry.pid, none).rss / KB,
            gone=entry.pid in self._gone,
        )

    @staticmethod
    def _sum(samples: dict[int, Sample], pids: Sequence[int]) -> int:
        return sum(samples[pid].rss for pid in pids if pid in samples)

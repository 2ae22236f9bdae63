"""Chat load: how many requests and tokens a second, how soon, how evenly, at what cost of CPU and memory.

Speaks only the public protocol (POST /v1/chat/completions, streamed) to a server on this machine.

As much as goes, 20 at once, with what it costs every process that `make run` started:
  python -m ops.load.chat --url http://127.0.0.1:8000 --key sk-cozy-dev --sessions \\
      --concurrency 20 --requests 2000 --run-json .data/run.json

What the house adds to the time to first token, against the model server called directly:
  python -m ops.load.chat --url http://127.0.0.1:8000 --key sk-cozy-dev --requests 200 \\
      --compare http://127.0.0.1:9000/v1 --compare-model scripted

A thousand streams opened over ten seconds, each at 10 tokens a second:
  python -m ops.load.chat --url http://127.0.0.1:8000 --key sk-cozy-dev --sessions \\
      --requests 1000 --open-over 10 --pace 10 --run-json .data/run.json

Pace and length are asked of the scripted model server (x-scripted-* headers), through whatever lies between.
Tokens are those that usage reports; TTFT runs from the request written to the first text; gaps lie between
content events of one stream. Exit code: 0, 1 if any request failed, 2 if the run could not be made,
130 if it was interrupted.
"""

import asyncio
import contextlib
import resource
import sys
from collections.abc import Sequence

import msgspec
import uvloop

from ops.load.arguments import read_command
from ops.load.drive import Outcome, drive
from ops.load.plan import Plan
from ops.load.report import as_json, as_table
from ops.load.users import NotPrepared


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line given and print its report; the exit code is described above."""
    command = read_command(arguments, __doc__)
    try:
        outcome = _run(command.plan)
    except (NotPrepared, OSError, msgspec.DecodeError) as problem:
        print(f"no figures: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("no figures: interrupted", file=sys.stderr)
        return 130
    print(as_json(command.plan, outcome) if command.as_json else as_table(command.plan, outcome))
    return 1 if outcome.failed else 0


def _run(plan: Plan) -> Outcome:
    _allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive(plan))


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, often 1,024, to what the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the hard limit is no number the system takes, the old one stands, and a lack shows as EMFILE.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())

"""What is counted, defined once. Labels have few values each: never an id, a user's text or a name a client chose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A second series for each one, of a moment nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_REPLY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120, 600)

REQUESTS = Counter("cozy_requests_total", "HTTP requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("cozy_request_seconds", "From a request to its answer's end.", ["route"], buckets=_REPLY)
FIRST_TOKEN_SECONDS = Histogram("cozy_first_token_seconds", "From a chat request to its first words.", buckets=_REPLY)
OPEN_STREAMS = Gauge("cozy_open_streams", "SSE streams open now.")
STALLED_CLIENTS = Counter("cozy_stalled_clients_total", "Clients that were dropped because they did not read.")
STREAM_SECONDS = Histogram("cozy_stream_seconds", "How old SSE streams were when they ended.", buckets=_REPLY)

TURNS = Counter("cozy_turns_total", "Turns that reached a state: accepted, or one of the ends.", ["state"])
STAGE_WORK = Counter("cozy_stage_work_total", "Messages a stage worked on, by outcome.", ["stage", "outcome"])
STAGE_SECONDS = Histogram("cozy_stage_seconds", "How long a stage worked on one message.", ["stage"], buckets=_REPLY)
REDELIVERIES = Counter("cozy_redeliveries_total", "Messages that came to a stage again.", ["stage"])
DEAD_LETTERS = Counter("cozy_dead_letters_total", "Messages set aside for good.", ["stage"])
BACKLOG = Gauge("cozy_queue_backlog", "Messages that wait for a stage or are in its hands.", ["stage"])
SWEPT = Counter("cozy_swept_turns_total", "Turns that stood still and were driven again.")
PUBLISH_RETRIES = Counter("cozy_publish_retries_total", "Publishes made again: the stream's receipt did not come.")

ENGINE_CALLS = Counter("cozy_engine_calls_total", "Calls to engines, by outcome.", ["engine", "provider", "outcome"])
ENGINE_SECONDS = Histogram("cozy_engine_seconds", "How long engine calls took.", ["engine", "provider"], buckets=_REPLY)
TOKENS = Counter("cozy_tokens_total", "Tokens of finished replies: prompt or completion.", ["kind"])
TOOL_CALLS = Counter("cozy_tool_calls_total", "Calls of tools of ours, by outcome.", ["tool", "outcome"])
TOOL_SECONDS = Histogram("cozy_tool_seconds", "How long tool calls took.", ["tool"], buckets=_QUICK)

RECORD_ANSWERS = Counter("cozy_record_answers_total", "Questions to the records worker.", ["question", "outcome"])
RECORD_SECONDS = Histogram("cozy_record_seconds", "How long an answer took.", ["question"], buckets=_QUICK)
RECORDS_NOT_SENT = Counter("cozy_record_answers_not_sent_total", "Answers that the bus did not take.")
LOG_LINES_LOST = Counter("cozy_log_lines_lost_total", "Log lines that could not be written.")


def turn_accepted() -> None:
    """A turn's row is committed."""
    TURNS.labels("accepted").inc()


def turn_ended(state: str) -> None:
    """A turn reached one of its ends."""
    TURNS.labels(state).inc()


def tokens(prompt: int, completion: int) -> None:
    """A reply is finished and took this many."""
    TOKENS.labels("prompt").inc(prompt)
    TOKENS.labels("completion").inc(completion)


def worked(stage: str, outcome: str, seconds: float | None = None) -> None:
    """A stage has settled a message."""
    STAGE_WORK.labels(stage, outcome).inc()
    if seconds is not None:
        STAGE_SECONDS.labels(stage).observe(seconds)


def redelivered(stage: str) -> None:
    """A message came to a stage that had seen it before, or should have."""
    REDELIVERIES.labels(stage).inc()


def record_answered(question: str, outcome: str, seconds: float) -> None:
    """The records worker has an answer, or a fault's code, for a question."""
    RECORD_ANSWERS.labels(question, outcome).inc()
    RECORD_SECONDS.labels(question).observe(seconds)


def record_not_sent() -> None:
    """An answer was there and the bus did not take it."""
    RECORDS_NOT_SENT.inc()


def tool_called(tool: str, outcome: str) -> None:
    """A tool of ours was called."""
    TOOL_CALLS.labels(tool, outcome).inc()


def tool_ran(tool: str, seconds: float) -> None:
    """A tool of ours was at work, whatever came of it."""
    TOOL_SECONDS.labels(tool).observe(seconds)


def backlog(stage: str, messages: int) -> None:
    """So many messages wait for a stage or are in its hands."""
    BACKLOG.labels(stage).set(messages)


def published_again() -> None:
    """The stream's receipt for a message did not come in time."""
    PUBLISH_RETRIES.inc()


def swept(turns: int) -> None:
    """The sweeper drove turns again."""
    SWEPT.inc(turns)


def first_token(seconds: float) -> None:
    """A client has seen the first words of its reply."""
    FIRST_TOKEN_SECONDS.observe(seconds)


@contextmanager
def sse_stream() -> Iterator[None]:
    """One open SSE stream, from here to the end of the block."""
    began = monotonic()
    OPEN_STREAMS.inc()
    try:
        yield
    finally:
        OPEN_STREAMS.dec()
        STREAM_SECONDS.observe(monotonic() - began)


def client_stalled() -> None:
    """A client did not take what it was sent, and was dropped."""
    STALLED_CLIENTS.inc()


def dead_letter(stage: str) -> None:
    """A stage set a message aside for good."""
    DEAD_LETTERS.labels(stage).inc()

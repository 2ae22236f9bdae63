"""An answer as it comes in."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.replies import Answer, Reply
from ops.load.samples import Samples

ROLE = b'id: 1\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'id: 2\ndata: {"choices":[{"delta":{"content":"\\u00e4"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":40}}\n\n'
ERROR = b'data: {"error":{"message":"a secret","code":"ENGINE_FAILED"}}\n\n'
DONE = b"data: [DONE]\n\n"


def reply(*bodies: bytes) -> Reply:
    """A reply whose pieces arrive at 1, 2, 3 ... seconds, and which is not over."""
    heard = Reply(Samples())
    heard.head(200, b"text/event-stream; charset=utf-8")
    for now, body in enumerate(bodies, start=1):
        heard.body(body, now)
    return heard


def ended(*bodies: bytes) -> Reply:
    heard = reply(*bodies)
    heard.end()
    return heard


def test_a_whole_reply_has_no_fault_and_the_tokens_of_its_usage() -> None:
    heard = ended(ROLE, TEXT, b": ping\n", TEXT, USAGE, DONE)
    assert (heard.fault, heard.tokens, heard.events) == (None, 40, 2)


def test_without_usage_content_events_stand_for_tokens() -> None:
    heard = ended(ROLE, TEXT, TEXT, TEXT, DONE)
    assert (heard.fault, heard.tokens, heard.usage_tokens) == (None, 3, None)


def test_the_first_text_is_not_the_role_chunk() -> None:
    assert ended(ROLE, TEXT, TEXT, DONE).first_at == 2


def test_gaps_lie_between_content_events_only() -> None:
    gaps = Samples()
    heard = Reply(gaps)
    heard.head(200, b"text/event-stream")
    for now, body in ((1.0, ROLE), (2.0, TEXT), (2.5, TEXT + TEXT), (4.0, USAGE), (9.0, DONE)):
        heard.body(body, now)
    assert (gaps.count, gaps.max) == (2, 0.5)


@given(st.lists(st.integers(0, 400), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_it_does_not_matter_where_the_bytes_are_split(cuts: list[int], newline: bytes) -> None:
    whole = (ROLE + TEXT + TEXT + USAGE + DONE).replace(b"\n", newline)
    edges = [0, *sorted(cuts), len(whole)]
    heard = ended(*(whole[a:b] for a, b in itertools.pairwise(edges)))
    assert (heard.fault, heard.tokens, heard.events) == (None, 40, 2)


@pytest.mark.parametrize(
    ("bodies", "fault"),
    [
        ([ROLE, TEXT], "cut without [DONE]"),
        ([ROLE, TEXT, DONE[:-6]], "cut without [DONE]"),
        ([ROLE, TEXT, ERROR], "stream error ENGINE_FAILED"),
        ([ROLE, TEXT, ERROR, DONE], "stream error ENGINE_FAILED"),
        ([ROLE, b'data: {"choices":[{"delta":{"content":"a\n\n', USAGE, DONE], "malformed event"),
        ([ROLE, USAGE, DONE], "empty reply"),
    ],
)
def test_a_reply_that_is_not_whole_says_why(bodies: list[bytes], fault: str) -> None:
    assert ended(*bodies).fault == fault


@pytest.mark.parametrize(
    ("bodies", "fault"),
    [
        ([ROLE], "timeout before first token"),
        ([ROLE, TEXT], "timeout mid-stream"),
        ([ROLE, TEXT, DONE], "timeout after [DONE]"),
    ],
)
def test_a_timeout_says_how_far_the_reply_had_come(bodies: list[bytes], fault: str) -> None:
    heard = reply(*bodies)
    heard.expire()
    assert heard.fault == fault


def test_an_answer_that_is_no_event_stream_is_a_fault() -> None:
    heard = Reply(Samples())
    heard.head(200, b"application/json")
    heard.body(b'{"choices":[]}', 1)
    heard.end()
    assert heard.fault == "not an event stream"


def test_an_http_error_is_named_by_status_and_code() -> None:
    heard = Reply(Samples())
    heard.head(429, b"application/json")
    heard.body(b'{"error":{"code":"RESOURCE_', 1)
    heard.body(b'RATE_LIMITED"}}', 2)
    heard.end()
    assert heard.fault == "http 429 RESOURCE_RATE_LIMITED"


def test_a_connection_lost_before_the_status_is_told_from_a_cut_stream() -> None:
    nothing, cut = Reply(Samples()), reply(ROLE, TEXT)
    nothing.lost()
    cut.lost()
    assert (nothing.fault, cut.fault) == ("closed before response", "cut without [DONE]")


def test_the_body_that_is_kept_has_a_bound() -> None:
    answer = Answer()
    answer.head(500, b"text/plain")
    for _ in range(100):
        answer.body(b"x" * 16_384, 1)
    assert len(answer.text) == 64 * 1024

"""A log line: its form, what stays out of it, and what it costs."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.contextvars import bound_contextvars

from ops.runtime.logs import Output, Renderer
from ops.runtime.metrics import LOG_LINES_LOST
from schemas.faults import SessionBusy

CANARY = "canary-4711"


class Said(msgspec.Struct):
    words: str


def line(renderer: Renderer | None = None, **values: Any) -> dict[str, Any]:
    """The fields of one line, as a reader gets them."""
    rendered = (renderer or Renderer("gateway"))(None, "info", {"event": "tested", **values})
    assert rendered.endswith(b"\n")
    assert rendered.count(b"\n") == 1
    fields: dict[str, Any] = msgspec.json.decode(rendered)
    return fields


def test_a_line_has_the_fields_every_line_has() -> None:
    fields = line()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("timestamp"))
    assert fields == {"level": "info", "event": "tested", "process": "gateway"}


def test_an_instance_is_written_where_it_has_a_name() -> None:
    assert line(Renderer("gateway", instance="pod-3"))["instance"] == "pod-3"


def test_bound_ids_are_in_every_line_and_a_line_s_own_value_wins() -> None:
    with bound_contextvars(turn_id="t1", session_id="s1"):
        fields = line(session_id="s2", latency_ms=1.5)
    assert (fields["turn_id"], fields["session_id"], fields["latency_ms"]) == ("t1", "s2", 1.5)


@pytest.mark.parametrize("name", ["content", "text", "prompt", "messages", "arguments", "body", "title"])
def test_what_people_say_is_withheld(name: str) -> None:
    assert line(None, **{name: CANARY})[name] == "[redacted]"
    assert CANARY not in str(line(nested={"deeper": [{name: [CANARY]}]}))


@pytest.mark.parametrize("name", ["authorization", "api_key", "token", "password", "database_url"])
@pytest.mark.parametrize("log_content", [False, True])
def test_secrets_are_withheld_always(name: str, log_content: bool) -> None:
    renderer = Renderer("gateway", log_content=log_content)
    assert line(renderer, **{name: CANARY})[name] == "[redacted]"
    assert CANARY not in str(line(renderer, content={name: CANARY}))


def test_whether_a_secret_is_set_may_be_told() -> None:
    assert line(config={"api_key": "set"})["config"]["api_key"] == "set"


def test_a_key_in_any_text_is_masked() -> None:
    fields = line(reason="bad key sk-proj-abcdefgh", seen=["Bearer abcdefgh12"])
    assert (fields["reason"], fields["seen"]) == ("bad key sk-***", ["Bearer ***"])


@pytest.mark.parametrize("value", [Said(CANARY), CANARY.encode(), object, ValueError(CANARY)])
def test_a_value_that_is_no_plain_one_is_told_by_its_type(value: object) -> None:
    assert CANARY not in str(line(value=value))


def test_a_fault_as_a_value_keeps_its_words() -> None:
    assert line(fault=SessionBusy())["fault"]["message"] == "The session is busy with another turn."


def test_a_document_is_cut() -> None:
    assert len(line(value="x" * 5000)["value"]) == 1001


def test_numbers_of_what_people_say_are_plain() -> None:
    assert line(messages=12)["messages"] == 12


def test_half_an_emoji_still_makes_a_line() -> None:
    assert line(value="\ud83d", big=1 << 70)["big"] == 1 << 70


def test_the_switch_lets_words_through_without_persons_and_keys() -> None:
    fields = line(
        Renderer("generation", log_content=True),
        content="hello, I am a@b.org, +49 170 1234567, sk-abcdefgh",
        messages=[{"role": "user", "content": "hi"}],
    )
    assert fields["content"] == "hello, I am [e-mail], [number], sk-***"
    assert fields["messages"] == [{"role": "user", "content": "hi"}]


def test_an_exception_is_told_without_its_message() -> None:
    try:
        int(CANARY)
    except ValueError:
        fields = line(exc_info=True)
    assert fields["exception"]["type"] == "ValueError"
    assert "test_logs.py" in fields["exception"]["at"][0]
    assert CANARY not in str(fields)


def test_a_line_that_cannot_be_written_is_counted_and_ends_nothing() -> None:
    before = LOG_LINES_LOST._value.get()
    closed = io.BytesIO()
    closed.close()
    Output(closed).info(b"x\n")
    assert LOG_LINES_LOST._value.get() == before + 1


PROCESS = """
import asyncio, logging, sys, threading, warnings
import structlog
from ops.runtime import config, logs

early = structlog.get_logger()
logs.configure("records", config.load({"SCRIPTED_URL": "http://h", **VARIABLES}))
log = structlog.get_logger()
word = "canary-4711"
early.info("early")
log.debug("quiet", content=word)
log.info("spoken", content=word, password=word)
noisy = logging.getLogger("httpx")
noisy.info("GET %s", word)
noisy.warning("retry %d of %s", 2, word)
noisy.warning(f"retry of {word}")
try:
    raise ValueError(word)
except ValueError:
    noisy.exception("failed")
warnings.warn(word)
thread = threading.Thread(target=lambda: int(word))
thread.start()
thread.join()

async def leave_a_task_behind():
    asyncio.get_running_loop().create_task(asyncio.to_thread(int, word), name=word)
    await asyncio.sleep(0.05)

asyncio.run(leave_a_task_behind())
raise RuntimeError(word)
"""


def run(**variables: str) -> tuple[list[dict[str, Any]], str]:
    """The lines of a whole process that does everything wrong, and what it wrote elsewhere."""
    code = PROCESS.replace("VARIABLES", repr(variables))
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    return [msgspec.json.decode(each) for each in done.stdout.splitlines()], done.stdout + done.stderr


def test_a_whole_process_says_no_word_of_anyone() -> None:
    lines, everything = run()
    assert CANARY not in everything
    events = [each["event"] for each in lines]
    assert events[:2] == ["early", "spoken"]
    assert {"library_message", "thread_crashed", "crashed"} <= set(events)
    assert all(each["process"] == "records" for each in lines)


def test_a_library_s_own_words_and_numbers_stay_and_its_debug_lines_do_not() -> None:
    lines, _ = run()
    heard = [each for each in lines if each.get("logger") == "httpx"]
    assert [each.get("said") for each in heard] == ["retry 2 of …", None, "failed"]
    assert heard[2]["exception"]["type"] == "ValueError"


def test_the_level_decides_which_of_our_lines_come() -> None:
    lines, _ = run(COZY_OBSERVABILITY__LOG_LEVEL="error")
    assert {each["level"] for each in lines if each["event"] != "library_message"} == {"critical"}


def test_the_switch_shows_content_and_still_no_password() -> None:
    lines, _ = run(COZY_OBSERVABILITY__LOG_CONTENT="true")
    spoken = next(each for each in lines if each["event"] == "spoken")
    assert (spoken["content"], spoken["password"]) == (CANARY, "[redacted]")

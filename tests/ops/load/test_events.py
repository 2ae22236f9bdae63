"""What a line of the stream says."""

import msgspec
import pytest

from ops.load.events import error_code, is_plainly_content, read_chunk, refusal_code


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}',
        b'data: {"choices":[{"delta":{"role":"assistant","content":"\\n"}}]}',
        b'data: {"cozy":{"content":""},"choices":[{"delta":{"content":"\\"content\\":\\"\\""}}]}',
    ],
)
def test_a_chunk_with_text_is_recognised_without_decoding(line: bytes) -> None:
    assert is_plainly_content(line)


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}',
        b'data: {"choices":[{"delta":{"reasoning_content":"a"}}]}',
        b'data: {"choices":[{"delta":{}}],"usage":null}',
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}',
        b'data: {"choices":[{"delta":{"content":"a',
        b'data: {"choices":[{"delta":{"content":"',
        b'data: {"choices":[],"cozy":{"content":"a"}}',
        b"data: [DONE]",
        b"data:",
    ],
)
def test_anything_else_needs_a_closer_look(line: bytes) -> None:
    assert not is_plainly_content(line)


def test_a_closer_look_finds_text_in_any_spelling_and_any_choice() -> None:
    chunk = read_chunk(b'{"choices": [{"delta": {"content": ""}}, {"delta": {"content": "a"}}]}')
    assert chunk.has_content()


def test_a_closer_look_finds_usage_and_no_text() -> None:
    chunk = read_chunk(b'{"choices":[],"usage":{"completion_tokens":7,"total_tokens":9}}')
    assert chunk.usage is not None
    assert (chunk.usage.completion_tokens, chunk.has_content()) == (7, False)


@pytest.mark.parametrize("payload", [b"", b"what", b'{"choices":7}', b"[]"])
def test_what_is_no_chunk_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_chunk(payload)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "ENGINE_FAILED", "type": "server_error"}, "ENGINE_FAILED"),
        ({"code": None, "type": "server_error"}, "server_error"),
        ({"code": 503}, "503"),
        ({"code": "my name is Ada", "type": "server_error"}, "server_error"),
        ({"message": "my name is Ada"}, "no_code"),
        ("my name is Ada", "no_code"),
    ],
)
def test_an_error_is_named_by_its_code_and_never_by_its_words(error: object, code: str) -> None:
    assert error_code(error) == code


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail":"x"}'])
def test_an_http_error_of_another_shape_has_no_code(body: bytes) -> None:
    assert refusal_code(body) == "no_code"

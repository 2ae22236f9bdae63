"""The codec: what is encoded decodes to the same, and a newer sender is understood."""

from __future__ import annotations

import msgspec
import pytest

from schemas import codec
from schemas.replies import Delta, Fence, Frame
from schemas.turns import TurnPrepared


def test_what_is_encoded_decodes_to_the_same() -> None:
    event = TurnPrepared(turn_id="t", round=3)
    assert codec.decode(codec.encode(event), TurnPrepared) == event


def test_bytes_that_are_no_such_value_are_refused() -> None:
    for data in (b"", b"\xc1", codec.encode({"round": 1}), codec.encode(["d", "not a number", 1])):
        with pytest.raises(msgspec.DecodeError):
            codec.decode(data, TurnPrepared)


def test_a_field_of_a_newer_sender_is_skipped() -> None:
    assert codec.decode(codec.encode({"turn_id": "t", "mood": "good"}), TurnPrepared) == TurnPrepared(turn_id="t")


def test_a_frame_of_a_newer_sender_is_read_as_far_as_we_know_it() -> None:
    newer = codec.encode([*msgspec.to_builtins(Delta(1, 2, "hi")), {"mood": "good"}])
    assert codec.decoder(Frame).decode(newer) == Delta(1, 2, "hi")


def test_a_frame_of_an_older_sender_has_the_defaults_of_what_it_lacks() -> None:
    assert codec.decoder(Frame).decode(codec.encode(["d", 1, 2])) == Delta(1, 2)


def test_a_decoder_is_made_once() -> None:
    assert codec.decoder(Frame) is codec.decoder(Frame)
    assert codec.decoder(Fence) is not codec.decoder(Frame)

"""The seam: whatever a model puts before its next words, reader and store get them as if nothing had happened."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ops.local.scripted import chat_request, content
from ops.local.scripted.controls import Controls
from ops.local.scripted.conversation import Conversation
from workers.generation.seam import ANCHOR_MAX, WINDOW, Seam, parted, wish

WORDS = st.sampled_from(
    ["the", "a", "river", "stone,", "café", "雪", "🌲", "said:", "it's", "12", "No!", "rain.", "`co-de`", "Straße"]
)
BLANKS = st.sampled_from([" ", " ", " ", "\n", "\n\n", "  "])
TEXTS = st.lists(st.tuples(WORDS, BLANKS), min_size=2, max_size=120).map(lambda parts: "".join(map("".join, parts)))
ANY_TEXT = st.text(min_size=1, max_size=300)
SEAMS = st.sampled_from(["none", "preamble", "repeat", "reword", "midword", "tagged"])


def last_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?。！？])\s", text.rstrip())[-1]


def continued(whole: str, prefix: str, seam: str) -> str:
    """What a model says that has this text in mind, was given its beginning, and opens in its own way."""
    said, anchor = parted(prefix)
    rest = whole[len(said) :]
    match seam:
        case "preamble":
            return f"Sure, continuing: {rest}"
        case "repeat":
            return last_sentence(said) + rest
        case "reword":
            return (said.split() or [""])[-1] + rest
        case "midword":
            return rest.lstrip()
        case "tagged":
            return f"<last_words>{anchor}</last_words>{rest[len(anchor) :]}"
    return rest


def joined(prefix: str, said: str, size: int) -> str:
    """What the reader sees in the end; the model's words come in pieces of this size."""
    seam, shown = Seam(prefix), prefix
    for start in range(0, len(said), size):
        piece = said[start : start + size]
        shown += piece if seam.decided else seam.feed(piece)
    return shown + seam.end()


@given(TEXTS, st.integers(min_value=2), SEAMS, st.integers(min_value=1, max_value=30))
@example("the river said: it's 12 the river said: it's 12 x", 30, "repeat", 3)
def test_a_text_cut_anywhere_is_whole_again_whatever_the_model_puts_before_it(
    whole: str, cut: int, seam: str, size: int
) -> None:
    prefix = whole[: 2 + cut % max(1, len(whole) - 2)]
    said, anchor = parted(prefix)
    assume(prefix.find(anchor.strip()) >= len(said))  # what a text has twice cannot be told apart
    assert joined(prefix, continued(whole, prefix, seam), size) == whole


@given(ANY_TEXT, st.integers(min_value=0), st.integers(min_value=1, max_value=30))
def test_any_text_at_all_is_whole_again_when_the_model_does_as_it_was_asked(whole: str, cut: int, size: int) -> None:
    prefix = whole[: 2 + cut % max(1, len(whole) - 2)]
    _, anchor = parted(prefix)
    assume(anchor.strip() and not whole[len(prefix) :].startswith("</"))
    shown = joined(prefix, continued(whole, prefix, "none"), size)
    assert shown.removeprefix(prefix).lstrip() == whole.removeprefix(prefix).lstrip()
    assert shown.startswith(prefix)


@given(ANY_TEXT)
def test_given_text_and_anchor_are_the_prefix(prefix: str) -> None:
    said, anchor = parted(prefix)
    assert said + anchor == prefix
    assert said or len(prefix) == 1
    assert len(anchor) <= ANCHOR_MAX + 64


def test_an_anchor_is_long_enough_to_be_the_only_one() -> None:
    refrain = "row, row, row your boat gently down the stream. " * 2
    prefix = "merrily, merrily, " + refrain
    said, anchor = parted(prefix)
    assert prefix.count(anchor.strip()) == 1
    assert said.endswith(" ")


def test_the_model_is_asked_to_begin_with_the_anchor() -> None:
    asked = wish("the quick brown")
    assert asked.startswith("Continue")
    assert "<last_words>the quick brown</last_words>" in asked


PREFIX = "It was a dark and stormy night. The rain fell in torrents, except at occasional intervals, when it was"


@pytest.mark.parametrize(
    ("prefix", "said", "shown"),
    [
        (PREFIX, " checked by a violent gust of wind.", " checked by a violent gust of wind."),
        (PREFIX, "checked by a gust.", " checked by a gust."),
        (PREFIX, "Sure, continuing: checked by a gust.", " checked by a gust."),
        (PREFIX, "Sure! Here is the rest of my message:\n\nchecked by a gust.", " checked by a gust."),
        (PREFIX, "when it was checked by a gust.", " checked by a gust."),
        (PREFIX, "was checked by a gust.", " checked by a gust."),
        (PREFIX, ", as we know, checked.", ", as we know, checked."),
        (PREFIX + ".", "Then it stopped.", " Then it stopped."),
        (PREFIX + " ", " checked.", "checked."),
        (PREFIX + "\n\n", "Then it stopped.", "Then it stopped."),
        ("雨下得很大", "风也很大", "风也很大"),
        ("雨下得很大，风也", "雨下得很大，风也很大", "很大"),
        (PREFIX, "", ""),
        (PREFIX, "  ", ""),
    ],
)
def test_a_model_that_leaves_the_anchor_out_is_fitted_as_well_as_can_be(prefix: str, said: str, shown: str) -> None:
    assert joined(prefix, said, 5) == prefix + shown


def test_real_words_are_not_taken_for_a_preamble() -> None:
    said = "Continue reading, said the rest of them, and he did. " * 8
    assert joined(PREFIX, said, 7) == f"{PREFIX} {said}"


def test_a_model_that_does_not_do_as_asked_is_not_held_back_for_ever() -> None:
    seam, fed = Seam(PREFIX), 0
    while not seam.decided:
        seam.feed("other ")
        fed += 6
    assert fed <= WINDOW + ANCHOR_MAX


def test_a_model_that_says_much_of_its_text_again_is_heard_out() -> None:
    prefix = "".join(f"Number {number} of many. " for number in range(60))
    again = prefix[200:]
    assert joined(prefix, again + "Number 60 of many.", 9) == prefix + "Number 60 of many."


def test_what_was_dropped_is_counted() -> None:
    seam = Seam(PREFIX)
    _, anchor = parted(PREFIX)
    assert seam.feed(f"Sure: {anchor} checked") == " checked"
    assert seam.dropped == len(f"Sure: {anchor}")


def scripted_says(seam: str, tokens: int, given: str | None = None, anchor: str = "") -> str:
    """What the scripted model server says, undisturbed or asked to go on."""
    messages = [{"role": "user", "content": "Tell me of rivers."}]
    if given is not None:
        messages += [{"role": "assistant", "content": given}, {"role": "user", "content": wish(anchor)}]
    request = chat_request.chat_request(json.dumps({"model": "scripted", "messages": messages}).encode())
    controls = Controls(tokens=tokens, seam=seam)  # type: ignore[arg-type]
    (choice,) = content.plan(request, Conversation(request), controls).choices
    return "".join(choice.content)


@pytest.mark.parametrize("seam", ["none", "preamble", "repeat", "reword", "midword"])
def test_every_seam_of_the_scripted_server_is_closed_at_every_place(seam: str) -> None:
    whole = scripted_says("none", 60)
    for cut in range(1, len(whole)):
        prefix = whole[:cut]
        assert joined(prefix, scripted_says(seam, 60, *parted(prefix)), 9) == whole, cut

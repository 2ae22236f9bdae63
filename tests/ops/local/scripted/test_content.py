"""What is said: a function of the messages, the parameters and the controls."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.local.scripted import tokens
from ops.local.scripted.chat_request import ChatRequest, chat_request
from ops.local.scripted.content import PREAMBLE, Choice, plan
from ops.local.scripted.controls import Controls
from ops.local.scripted.conversation import Conversation

Messages = list[dict[str, Any]]
QUESTION: Messages = [
    {"role": "system", "content": "You are Cozy, a kind host. Never hurry."},
    {"role": "user", "content": "Tell me about the sea. It is wide."},
]


def asked(messages: Messages, **more: Any) -> ChatRequest:
    return chat_request(msgspec.json.encode({"messages": messages, **more}))


def planned(messages: Messages, controls: Controls | None = None, **more: Any) -> Choice:
    request = asked(messages, **more)
    return plan(request, Conversation(request), controls or Controls()).choices[0]


def text(messages: Messages, controls: Controls | None = None, **more: Any) -> str:
    return "".join(planned(messages, controls, **more).content)


def test_the_same_messages_get_the_same_reply_whatever_the_marks() -> None:
    marked = [*QUESTION[:1], {"role": "user", "content": "[[gap=5]] Tell me about the sea. It is wide. [[tokens=3]]"}]
    assert text(marked) == text(QUESTION)


def test_filler_differs_between_conversations_and_not_within_one() -> None:
    ten = Controls(tokens=10)
    assert text(QUESTION, ten) == text(QUESTION, ten)
    assert text(QUESTION, ten) != text(QUESTION[1:], ten)


def test_a_reply_tells_the_wish_the_history_and_the_images() -> None:
    history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    last = {"role": "user", "content": [{"type": "text", "text": "three"}, picture]}
    said = text([QUESTION[0], *history, last])
    assert 'I was asked to be: "You are Cozy, a kind host."' in said
    assert "Before this I saw 2 messages." in said
    assert "I see 1 image." in said
    assert "stand-in" not in said


def test_what_was_said_before_is_quoted_when_asked_for() -> None:
    history = [{"role": "user", "content": "My cat is Tom [[gap=1]]"}, {"role": "assistant", "content": "ok"}]
    assert text([*history, {"role": "user", "content": "What did I say before?"}]).endswith(
        'Before this you said: "My cat is Tom"'
    )


def test_nothing_said_before_is_admitted() -> None:
    assert "not said anything" in text([{"role": "user", "content": "do you remember me?"}])


def test_the_most_tokens_end_a_reply_for_its_length() -> None:
    choice = planned(QUESTION, max_tokens=9, max_completion_tokens=3)
    assert (choice.count, choice.finish) == (3, "length")
    assert planned(QUESTION, Controls(tokens=3), max_tokens=3).finish == "stop"


def test_reasoning_counts_towards_the_most_tokens() -> None:
    choice = planned(QUESTION, Controls(reasoning=5), max_tokens=4)
    assert (len(choice.reasoning), len(choice.content), choice.finish) == (4, 0, "length")


def test_arguments_are_cut_at_the_most_tokens() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    choice = planned(QUESTION, Controls(call='look {"for": "something far away"}'), tools=tools, max_tokens=3)
    assert (choice.count, choice.finish) == (3, "length")
    assert len(choice.calls[0].fragments) == 2


@pytest.mark.parametrize("stop", ["scripted", "stand-in that", ["zzz", "ted stand", "no real"]])
def test_a_reply_ends_before_a_stop_string_even_across_tokens(stop: str | list[str]) -> None:
    whole = text(QUESTION)
    stops = [stop] if isinstance(stop, str) else stop
    first = min(whole.index(one) for one in stops if one in whole)
    choice = planned(QUESTION, stop=stop)
    assert "".join(choice.content) == whole[:first]
    assert choice.finish == "stop"


def test_a_stop_string_at_the_very_beginning_leaves_nothing() -> None:
    assert planned(QUESTION, stop="Hello").content == []


def prefilled(prefix: str, dialect: str) -> tuple[Messages, dict[str, Any]]:
    part: dict[str, Any] = {"role": "assistant", "content": prefix}
    if dialect == "vllm":
        return [*QUESTION, part], {"continue_final_message": True, "add_generation_prompt": False}
    return [*QUESTION, {**part, "prefix": True}], {}


@pytest.mark.parametrize("dialect", ["vllm", "mistral"])
@pytest.mark.parametrize("controls", [Controls(), Controls(tokens=40)])
def test_a_prefilled_reply_goes_on_exactly_wherever_it_was_cut(dialect: str, controls: Controls) -> None:
    whole = text(QUESTION, controls)
    for cut in range(len(whole) + 1):
        messages, flags = prefilled(whole[:cut], dialect)
        assert whole[:cut] + text(messages, controls, **flags) == whole


def test_a_part_that_is_not_the_replys_is_followed_by_what_lies_behind_as_many_tokens() -> None:
    whole = planned(QUESTION).content
    messages, flags = prefilled("something else", "mistral")
    assert planned(messages, **flags).content == whole[len(tokens.pieces("something else")) :]


def test_a_finished_answer_is_not_continued() -> None:
    assert text([*QUESTION, {"role": "assistant", "content": "I was"}]).startswith("I was asked to be")


def continued(cut: int, controls: Controls) -> tuple[str, str, str]:
    """The part, what was said after it, and the whole."""
    whole = text(QUESTION, controls)
    part = {"role": "assistant", "content": whole[:cut]}
    wish = {"role": "user", "content": "Continue exactly where your text stops."}
    return whole[:cut], text([*QUESTION, part, wish], controls), whole


def test_a_reply_asked_to_continue_goes_on_exactly() -> None:
    for cut in range(1, len(text(QUESTION))):
        part, rest, whole = continued(cut, Controls())
        assert part + rest == whole


def test_a_seam_can_open_with_a_preamble() -> None:
    part, rest, whole = continued(50, Controls(seam="preamble"))
    assert rest == PREAMBLE + whole[len(part) :]


def test_a_seam_can_repeat_the_last_sentence() -> None:
    cut = text(QUESTION).index("To connect one") + 7
    part, rest, whole = continued(cut, Controls(seam="repeat"))
    assert rest == "To conn" + whole[len(part) :]


def test_a_seam_can_begin_the_broken_word_again() -> None:
    cut = text(QUESTION).index("scripted") + 4
    part, rest, whole = continued(cut, Controls(seam="reword"))
    assert rest == "scri" + whole[len(part) :]


def test_a_seam_can_lose_its_leading_space() -> None:
    cut = text(QUESTION).index(" scripted")
    part, rest, whole = continued(cut, Controls(seam="midword"))
    assert rest == whole[len(part) :].lstrip()


def test_marks_are_read_from_the_question_when_a_reply_continues() -> None:
    marked = [{"role": "user", "content": "Go [[tokens=5]]"}, {"role": "assistant", "content": "x"}]
    wish = {"role": "user", "content": "continue"}
    assert Conversation(asked([*marked, wish])).marked_question == "Go [[tokens=5]]"


def test_a_json_object_is_one() -> None:
    assert msgspec.json.decode(text(QUESTION, response_format={"type": "json_object"})) == {"reply": "scripted"}


def test_the_choices_of_a_format_differ_and_are_valid() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    wish = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    request = asked(QUESTION, n=2, response_format=wish)
    choices = plan(request, Conversation(request), Controls()).choices
    names = [msgspec.json.decode("".join(choice.content))["name"] for choice in choices]
    assert names == ["scripted name", "scripted 2 name"]


@given(st.text())
def test_the_tokens_of_a_text_are_the_text(anything: str) -> None:
    assert "".join(tokens.pieces(anything)) == anything


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_filler_has_exactly_as_many_tokens_all_different(seed: int, count: int) -> None:
    made = tokens.filler(seed, count)
    assert len(made) == len(set(made)) == count


def test_filler_has_characters_of_every_length_in_bytes() -> None:
    lengths = {len(character.encode()) for character in "".join(tokens.filler(1, 200))}
    assert lengths == {1, 2, 3, 4}

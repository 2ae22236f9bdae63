"""What a request brings, who answers it, and what the reply is generated from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.runtime.config import Config
from schemas.context import ModelChoice, Sampling
from schemas.faults import InvalidValue, ModelNotFound
from schemas.openai import (
    CHARACTERS_PER_TOKEN,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    DeveloperMessage,
    FunctionCall,
    FunctionSpec,
    InputAudio,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    text_of,
)
from schemas.personalities import ModelSettings
from tests.workers.asked import chat
from workers.context_fetch.intake import (
    TOKENS_OF_AN_IMAGE,
    Answerer,
    answerer,
    bundle_of,
    fit,
    incoming,
    matched,
    size_of,
)

HOUSE, HINT = SystemMessage(content="Be brief."), DeveloperMessage(content="Be kind.")
U1, U2, U3 = (UserMessage(content=words) for words in ("one", "two", "three"))
A1 = AssistantMessage(content="yes")
CALLS = AssistantMessage(content=None, tool_calls=[ToolCall(id="c1", function=FunctionCall(name="look"))])
TOLD = ToolMessage(content="a cat", tool_call_id="c1")
CLOCK = Tool(function=FunctionSpec(name="clock"))

IDS = st.sampled_from(["c1", "c2", "c3"])
WORDS = st.text(max_size=12)
ANY: st.SearchStrategy[Message] = st.one_of(
    st.builds(UserMessage, content=WORDS),
    st.builds(AssistantMessage, content=WORDS),
    st.builds(ToolMessage, content=WORDS, tool_call_id=IDS),
    st.builds(
        lambda ids, words: AssistantMessage(
            content=words, tool_calls=[ToolCall(id=id, function=FunctionCall(name="look")) for id in ids]
        ),
        st.lists(IDS, min_size=1, max_size=2, unique=True),
        st.none() | WORDS,
    ),
)
HISTORY = st.lists(ANY, max_size=10)


def test_what_follows_the_last_reply_is_new_and_the_rest_is_ignored() -> None:
    brought = incoming(chat([U1, A1, U2, U3]))
    assert (brought.new, brought.ignored) == ((U2, U3), 2)


def test_without_a_reply_every_message_is_new() -> None:
    brought = incoming(chat([U1, U2]))
    assert (brought.new, brought.ignored) == ((U1, U2), 0)


def test_instructions_are_taken_from_anywhere_and_are_not_new() -> None:
    brought = incoming(chat([HOUSE, U1, A1, HINT, U2]))
    assert (brought.instructions, brought.new, brought.ignored) == ((HOUSE, HINT), (U2,), 2)


def test_tool_results_after_the_last_reply_are_new() -> None:
    assert incoming(chat([U1, CALLS, TOLD])).new == (TOLD,)


@given(st.lists(ANY | st.just(HOUSE), min_size=1, max_size=10))
def test_every_message_is_an_instruction_or_new_or_ignored(messages: list[Message]) -> None:
    brought = incoming(chat(messages))
    assert len(brought.instructions) + len(brought.new) + brought.ignored == len(messages)


@given(HISTORY)
def test_matched_messages_have_every_call_answered_after_it_and_every_answer_called_for(
    messages: list[Message],
) -> None:
    open_calls: set[str] = set()
    asked: set[str] = set()
    for message in matched(messages):
        if isinstance(message, AssistantMessage) and message.tool_calls:
            open_calls |= {call.id for call in message.tool_calls}
            asked |= open_calls
        elif isinstance(message, ToolMessage):
            assert message.tool_call_id in asked
            open_calls.discard(message.tool_call_id)
    assert not open_calls


@given(HISTORY)
def test_matching_keeps_what_was_said_in_its_order(messages: list[Message]) -> None:
    def said(some: list[Message]) -> list[str]:
        return [text_of(m.content) for m in some if not isinstance(m, ToolMessage) and text_of(m.content)]

    assert said(matched(messages)) == said(messages)


@given(HISTORY)
def test_what_is_matched_stays_as_it_is(messages: list[Message]) -> None:
    assert matched(matched(messages)) == matched(messages)


def test_a_call_that_was_never_answered_goes_and_its_words_stay() -> None:
    spoken = AssistantMessage(content="Let me look.", tool_calls=CALLS.tool_calls)
    assert matched([U1, CALLS, U2]) == [U1, U2]
    assert matched([U1, spoken, U2]) == [U1, AssistantMessage(content="Let me look."), U2]
    assert matched([U1, CALLS, TOLD, U2]) == [U1, CALLS, TOLD, U2]


def test_an_id_that_a_server_uses_twice_is_matched_each_time_by_itself() -> None:
    assert matched([U1, CALLS, TOLD, U2, CALLS, U3]) == [U1, CALLS, TOLD, U2, U3]


@given(HISTORY, st.integers(0, 20))
def test_what_fits_is_the_newest_and_within_its_room_and_begins_with_a_user(
    messages: list[Message], tokens: int
) -> None:
    kept = fit(messages, tokens)
    assert kept == messages[len(messages) - len(kept) :]
    assert sum(map(size_of, kept)) <= tokens * CHARACTERS_PER_TOKEN
    assert not kept or isinstance(kept[0], UserMessage)


@given(HISTORY, st.integers(0, 20))
def test_no_more_would_fit(messages: list[Message], tokens: int) -> None:
    kept = fit(messages, tokens)
    users = [i for i in range(len(messages) - len(kept)) if isinstance(messages[i], UserMessage)]
    if users:
        more = messages[users[-1] :]
        assert sum(map(size_of, more)) > tokens * CHARACTERS_PER_TOKEN


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (None, 0),
        ("four", 4),
        ([{"type": "text", "text": "four"}, {"type": "text", "text": "two"}], 7),
        ([{"type": "image_url", "image_url": {"url": "x" * 50_000}}], TOKENS_OF_AN_IMAGE * CHARACTERS_PER_TOKEN),
    ],
)
def test_a_message_has_the_size_of_its_words_and_an_image_a_price_of_its_own(content: Any, size: int) -> None:
    message = msgspec.convert({"role": "assistant" if content is None else "user", "content": content}, Message)
    assert size_of(message) == size


def test_files_and_sounds_count_with_all_they_hold_and_calls_with_their_arguments() -> None:
    sound = [AudioPart(input_audio=InputAudio(data="x" * 5000, format="wav"))]
    assert size_of(UserMessage(content=list(sound))) > 5000
    call = ToolCall(id="c", function=FunctionCall(name="look", arguments="x" * 100))
    assert size_of(AssistantMessage(content="hm", tool_calls=[call])) == 106


def cozy(**options: Any) -> dict[str, Any]:
    return {"cozy": options}


def who(config: Config, request: ChatRequest, session_personality: str | None = None) -> Answerer:
    return answerer(request, config.personalities, config.models, session_personality)


@pytest.mark.parametrize(
    ("model", "options", "in_session_of", "personality", "answers"),
    [
        ("cozy/default", {}, None, "default", "scripted"),
        ("cozy/tutor", {}, None, "tutor", "scripted"),
        ("cozy/default", {"personality_id": "tutor"}, None, "tutor", "scripted"),
        ("cozy/default", {"personality_id": "default"}, "tutor", "tutor", "scripted"),
        ("cozy/tutor", {}, "default", "default", "scripted"),
        ("scripted-small", {}, None, None, "scripted-small"),
        ("scripted-small", {}, "tutor", "tutor", "scripted-small"),
        ("scripted-small", {"personality_id": "tutor"}, None, "tutor", "scripted-small"),
        ("default", {}, None, None, "scripted"),
    ],
)
def test_a_session_s_personality_comes_first_and_a_model_that_is_named_counts(
    config: Config, model: str, options: dict[str, Any], in_session_of: str | None, personality: str, answers: str
) -> None:
    found = who(config, chat(model=model, **cozy(**options)), in_session_of)
    assert (found.personality and found.personality.id, found.choice.model) == (personality, answers)


@pytest.mark.parametrize("model", ["gpt-x", "cozy/nobody", "cozy/"])
def test_a_model_that_is_not_served_is_not_found_and_its_name_not_repeated(config: Config, model: str) -> None:
    with pytest.raises(ModelNotFound) as raised:
        who(config, chat(model=model))
    assert raised.value.record.param == "model"
    assert model not in raised.value.record.message


def test_a_personality_that_does_not_exist_is_an_invalid_value(config: Config) -> None:
    with pytest.raises(InvalidValue) as raised:
        who(config, chat(**cozy(personality_id="nobody")))
    assert raised.value.record.param == "cozy.personality_id"
    assert "nobody" not in raised.value.record.message


def test_a_personality_brings_its_prompt_its_sampling_and_its_tools(config: Config) -> None:
    tutor = config.personalities.get("tutor")
    assert tutor
    warm = msgspec.structs.replace(tutor, model=ModelSettings(temperature=0.3, top_p=0.5, max_output_tokens=7))
    choice = ModelChoice(provider="scripted", model="scripted")
    bundle = bundle_of(chat(), Answerer(personality=warm, choice=choice), in_session=False, tools=[CLOCK])
    assert (bundle.system, bundle.tools) == ((tutor.prompt,), (CLOCK,))
    assert bundle.sampling == Sampling(temperature=0.3, top_p=0.5, max_output_tokens=7)
    assert (bundle.personality_id, bundle.personality_version) == ("tutor", tutor.version)
    assert not bundle.passthrough


def test_a_raw_model_is_passed_through_with_nothing_of_ours(config: Config) -> None:
    request = chat([HOUSE, U1, A1, U2], model="scripted")
    bundle = bundle_of(request, who(config, request), in_session=False)
    assert (bundle.system, bundle.tools, bundle.sampling) == ((), (), Sampling())
    assert (bundle.incoming, bundle.passthrough) == ((HOUSE, U1, A1, U2), True)


def test_in_a_session_the_history_comes_between_the_instructions_and_what_is_new(config: Config) -> None:
    request = chat([HOUSE, U1, A1, U3])
    bundle = bundle_of(request, who(config, request), in_session=True, history=[U2, A1])
    assert (*bundle.history, *bundle.incoming) == (HOUSE, U2, A1, U3)


def test_a_result_for_an_open_call_of_the_session_belongs_to_it(config: Config) -> None:
    request = chat([TOLD])
    bundle = bundle_of(request, who(config, request), in_session=True, history=[U1, CALLS])
    assert (*bundle.history, *bundle.incoming) == (U1, CALLS, TOLD)


@pytest.mark.parametrize("messages", [[HOUSE], [U1, A1], [TOLD], [U1, A1, TOLD]])
def test_a_request_that_brings_nothing_new_to_its_session_is_refused(config: Config, messages: list[Message]) -> None:
    request = chat(messages)
    with pytest.raises(InvalidValue):
        bundle_of(request, who(config, request), in_session=True, history=[U1, A1])


def test_a_tool_of_the_client_s_hides_ours_of_the_same_name(config: Config) -> None:
    request = chat(tools=[msgspec.to_builtins(CLOCK)])
    assert bundle_of(request, who(config, request), in_session=False, tools=[CLOCK]).tools == ()


def test_several_answers_at_once_get_no_tools_of_ours(config: Config) -> None:
    request = chat(n=2)
    assert bundle_of(request, who(config, request), in_session=False, tools=[CLOCK]).tools == ()

"""The call that a model gets: its order, its tools, and whose wish counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.context import Sampling
from schemas.openai import (
    AssistantMessage,
    FunctionCall,
    FunctionSpec,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from schemas.replies import Delta
from tests.workers.asked import BUNDLE, chat
from workers.engines.ai.port import ModelCall
from workers.generation.prompt import model_call
from workers.generation.takeover import Prefix

SAID = Prefix(index=1, length=4, digest=0, said=(Delta(1, 1, "Once", tokens=3),))
CLOCK, LOOK = (Tool(function=FunctionSpec(name=name)) for name in ("clock", "look"))
U1, A1, U2 = UserMessage(content="1"), AssistantMessage(content="re 1"), UserMessage(content="2")
STEPS: list[Message] = [
    AssistantMessage(content=None, tool_calls=[ToolCall(id="c", function=FunctionCall("clock"))]),
    ToolMessage(content="noon", tool_call_id="c"),
]


def bundle(**changes: Any) -> Any:
    return msgspec.structs.replace(BUNDLE, **changes)


def test_the_prompt_comes_first_then_what_was_said_then_what_was_called() -> None:
    call = model_call(chat(), bundle(system=("Be kind.",), history=(U1, A1), incoming=(U2,)), STEPS)
    assert call.messages == (SystemMessage(content="Be kind."), U1, A1, U2, *STEPS)


def test_the_model_is_the_bundle_s_and_not_the_request_s() -> None:
    assert model_call(chat(model="cozy/default"), BUNDLE).model == "scripted"


def test_the_request_s_sampling_wins_over_the_personality_s() -> None:
    own = bundle(sampling=Sampling(temperature=0.5, top_p=0.5, max_output_tokens=50))
    call = model_call(chat(temperature=0.0, max_completion_tokens=7), own)
    assert (call.temperature, call.top_p, call.max_output_tokens) == (0.0, 0.5, 7)


PASSED_ON: dict[str, Any] = {
    "stop": ["x"],
    "seed": 7,
    "n": 2,
    "response_format": {"type": "json_object"},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"1": 1.0},
    "logprobs": True,
    "top_logprobs": 2,
    "user": "u",
    "metadata": {"k": "v"},
    "store": True,
}


@pytest.mark.parametrize("name", sorted(PASSED_ON))
def test_what_the_request_says_is_passed_on(name: str) -> None:
    call = model_call(chat(tools=[msgspec.to_builtins(LOOK)], **PASSED_ON), BUNDLE)
    assert getattr(call, name) == PASSED_ON[name]


def test_every_field_of_a_call_is_tried_here() -> None:
    tried = {
        "model",
        "messages",
        "temperature",
        "top_p",
        "max_output_tokens",
        "tools",
        "tool_choice",
        "headers",
        "prefix",
    }
    assert {field.name for field in msgspec.structs.fields(ModelCall)} == tried | PASSED_ON.keys()


def test_tools_of_both_sides_are_shown_sorted_by_name() -> None:
    call = model_call(chat(tools=[msgspec.to_builtins(LOOK)]), bundle(tools=(CLOCK,)))
    assert call.tools == (CLOCK, LOOK)


def test_without_tools_nothing_is_said_of_them() -> None:
    call = model_call(chat(tool_choice="auto", parallel_tool_calls=True), BUNDLE)
    assert (call.tools, call.tool_choice, call.parallel_tool_calls) == (None, None, None)


def test_a_forced_call_is_forced_in_the_first_round_only() -> None:
    request, own = chat(tool_choice="required"), bundle(tools=(CLOCK,))
    assert model_call(request, own).tool_choice == "required"
    assert model_call(request, own, STEPS).tool_choice == "auto"


def test_in_the_last_round_tools_are_shown_and_not_called() -> None:
    call = model_call(chat(), bundle(tools=(CLOCK,)), STEPS, last_round=True)
    assert (call.tools, call.tool_choice) == ((CLOCK,), "none")


def test_a_prefix_and_the_scripted_server_s_headers_come_along() -> None:
    call = model_call(chat(), BUNDLE, prefix=SAID, resume="prefill", scripted={"x-scripted-gap-ms": "1"})
    assert (call.prefix, call.headers) == ("Once", {"x-scripted-gap-ms": "1"})
    assert (model_call(chat(), BUNDLE).prefix, model_call(chat(), BUNDLE).headers) == (None, {})


def test_a_model_that_goes_on_when_asked_to_is_given_its_words_and_asked() -> None:
    plain, call = model_call(chat(), BUNDLE), model_call(chat(), BUNDLE, prefix=SAID, resume="continue")
    assert call.prefix is None
    given, wish = call.messages[len(plain.messages) :]
    assert isinstance(given, AssistantMessage)
    assert isinstance(wish, UserMessage)
    assert str(given.content) + "nce" == "Once"
    assert "<last_words>nce</last_words>" in str(wish.content)


@pytest.mark.parametrize("resume", ["prefill", "continue"])
def test_what_was_said_is_no_longer_left_to_say(resume: str) -> None:
    assert model_call(chat(max_tokens=10), BUNDLE, prefix=SAID, resume=resume).max_output_tokens == 7
    assert model_call(chat(), BUNDLE, prefix=SAID, resume=resume).max_output_tokens is None


def test_what_was_thought_is_thought_anew() -> None:
    thought = Prefix(index=1, length=2, digest=0, said=(Delta(1, 1, reasoning="hm", tokens=4),))
    assert model_call(chat(max_tokens=10), BUNDLE, prefix=thought, resume="prefill") == model_call(
        chat(max_tokens=10), BUNDLE
    )

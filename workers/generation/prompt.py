"""Pure: from a turn's bundle, its request and its earlier rounds to the call that the model gets."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.context import ContextBundle
from schemas.openai import AssistantMessage, ChatRequest, Message, SystemMessage, Tool, UserMessage
from workers.engines.ai.port import ModelCall
from workers.generation.seam import parted, wish
from workers.generation.takeover import Prefix


def model_call(
    request: ChatRequest,
    bundle: ContextBundle,
    steps: Sequence[Message] = (),
    *,
    last_round: bool = False,
    scripted: dict[str, str] | None = None,
    prefix: Prefix | None = None,
    resume: str | None = None,
) -> ModelCall:
    """What the model is asked. The order is stable, so that a provider's prompt cache is hit from turn to turn.

    The request's sampling wins over the personality's. In the last round the tools are shown but may not be called.
    With a prefix, the model goes on from its words as `resume` says, with as many tokens as are left to it.
    """
    sampling = bundle.sampling
    tools = tools_of(request, bundle)
    choice = request.tool_choice
    words = prefix.text if prefix else None
    most = request.max_output_tokens or sampling.max_output_tokens
    if tools and (last_round or steps):
        # A forced call was answered in the first round; forcing it again would never end.
        choice = "none" if last_round else "auto"
    return ModelCall(
        model=bundle.choice.model,
        messages=(
            *(SystemMessage(content=text) for text in bundle.system),
            *bundle.history,
            *bundle.incoming,
            *steps,
            *(asked_to_continue(words) if words and resume == "continue" else ()),
        ),
        temperature=_first(request.temperature, sampling.temperature),
        top_p=_first(request.top_p, sampling.top_p),
        max_output_tokens=most - prefix.given if most is not None and prefix else most,
        stop=request.stop,
        seed=request.seed,
        n=request.n,
        response_format=request.response_format,
        tools=tools or None,
        tool_choice=choice if tools else None,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        reasoning_effort=request.reasoning_effort,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        user=request.user,
        metadata=request.metadata,
        store=request.store,
        headers=scripted or {},
        prefix=words if resume == "prefill" else None,
    )


def asked_to_continue(words: str) -> tuple[Message, ...]:
    """The model's own words, and the wish that it goes on from them: `seam` fits together what it answers."""
    given, anchor = parted(words)
    return AssistantMessage(content=given), UserMessage(content=wish(anchor))


def tools_of(request: ChatRequest, bundle: ContextBundle) -> tuple[Tool, ...]:
    """The client's tools and ours, sorted by name."""
    return tuple(sorted((*(request.tools or ()), *bundle.tools), key=lambda tool: tool.function.name))


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)

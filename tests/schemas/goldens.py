"""Golden files: the bytes of every event as they were when it was first released, one hex line each.

`python -m tests.schemas.goldens` writes the files that are missing. It never changes one: a file that no longer decodes
to its example means that messages in flight, or rows at rest, would be lost by the next release. A new field gets a new
example beside the old ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schemas import codec
from schemas.context import ContextBundle, Degradation, ModelChoice, Sampling
from schemas.faults import FaultRecord
from schemas.openai import (
    AssistantMessage,
    ChatRequest,
    CozyOptions,
    DeveloperMessage,
    FunctionCall,
    FunctionSpec,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from schemas.replies import Checkpoint, Delta, Failed, Fence, Finished, Frame, Progress, Snapshot, Start
from schemas.turns import (
    Accepted,
    Refused,
    TurnArrival,
    TurnCompleted,
    TurnPrepared,
    TurnReleased,
    TurnRequested,
    TurnToolsCalled,
    Verdict,
)

FOLDER = Path(__file__).parent / "golden"
TURN, USER, SESSION = (f"0190163d-8694-739b-aea5-966c26f8ad9{last}" for last in "123")
FAULT = FaultRecord(code="ENGINE_TIMEOUT", message="Late.", param="model", retry_after=1.5, details={"status": 504})
CALL = ToolCall(id="call_1", function=FunctionCall(name="clock", arguments='{"timezone":"UTC"}'))
TOOL = Tool(function=FunctionSpec(name="clock", description="Time.", parameters={"type": "object"}, strict=True))
USAGE = Usage(
    prompt_tokens=1,
    completion_tokens=2,
    total_tokens=3,
    prompt_tokens_details={"cached_tokens": 1},
    completion_tokens_details={"reasoning_tokens": 1},
)
REQUEST = ChatRequest(
    model="cozy/default",
    messages=[
        SystemMessage(content="Be kind."),
        DeveloperMessage(content="Be brief."),
        UserMessage(content=[TextPart(text="Wie spät ist es? 🙂")], name="ann"),
        AssistantMessage(tool_calls=[CALL]),
        ToolMessage(content="noon", tool_call_id="call_1"),
    ],
    stream=True,
    temperature=0.5,
    stop=["END"],
    tools=[TOOL],
    metadata={"k": "v"},
    cozy=CozyOptions(session_id=SESSION, on_busy="queue"),
)
DELTA = Delta(
    epoch=1,
    index=2,
    text="grün 🙂",
    choice=1,
    reasoning="hm",
    tool_calls=[CALL],
    refusal="no",
    logprobs={"content": [{"token": "a", "logprob": -0.5}]},
    tokens=3,
    begins=True,
)

EXAMPLES: dict[str, tuple[Any, Any]] = {
    "start": (Frame, Start(2, 7, 2)),
    "fence": (Frame, Fence(2)),
    "delta": (Frame, DELTA),
    "delta-plain": (Frame, Delta(1, 1, "Hi")),
    "checkpoint": (Frame, Checkpoint(1, 7, 30, 3735928559)),
    "snapshot": (Frame, Snapshot(1, 2, [Delta(1, 1, "Hi"), DELTA])),
    "progress": (Frame, Progress(1, "clock", "call_1", "running")),
    "finished": (Frame, Finished(1, 7, ["stop", "length"], USAGE, 30, 3735928559, "cancelled", True)),
    "failed": (Frame, Failed(1, 7, FAULT, "interrupted")),
    "requested": (
        TurnArrival,
        TurnRequested(
            turn_id=TURN,
            user_id=USER,
            request_id="req-1",
            request=REQUEST,
            fingerprint="f" * 64,
            verdict_subject="verdict.g." + TURN,
            asked_at=1764000000.25,
            expires_at=1764000010.25,
            scripted={"x-scripted-gap-ms": "0"},
            keyed=True,
            retried=True,
        ),
    ),
    "released": (TurnArrival, TurnReleased(turn_id=TURN)),
    "prepared": (TurnPrepared, TurnPrepared(turn_id=TURN, round=1)),
    "tools-called": (TurnToolsCalled, TurnToolsCalled(turn_id=TURN, round=1)),
    "completed": (TurnCompleted, TurnCompleted(turn_id=TURN)),
    "accepted": (
        Verdict,
        Accepted(
            turn_id=TURN,
            session_id=SESSION,
            personality_id="default",
            shard=3,
            created=1764000000,
            ignored_messages=2,
            attached=True,
        ),
    ),
    "refused": (Verdict, Refused(turn_id=TURN, fault=FAULT)),
    "bundle": (
        ContextBundle,
        ContextBundle(
            choice=ModelChoice(provider="openai", model="gpt-5-mini"),
            sampling=Sampling(temperature=0.5, top_p=0.9, max_output_tokens=100),
            system=("Be kind.",),
            history=(UserMessage(content="Hi"), AssistantMessage(content="Hello.")),
            incoming=(UserMessage(content="How are you?"),),
            summary="They greeted.",
            knowledge=({"text": "k"},),
            memories=({"text": "m"},),
            profile=({"topic": "t"},),
            token_budget=1000,
            tools=(TOOL,),
            personality_id="default",
            personality_version="abc",
            passthrough=True,
            metadata=Degradation(
                enabled_engines=("memory",),
                cache_hits=("profile",),
                degraded=True,
                degrade_reasons=("knowledge: timeout",),
                timings={"memory": 1.5},
            ),
        ),
    ),
}
"""What each file was written from, and the type its reader asks for. Never change one; add another."""


def write_missing() -> list[str]:
    """Write the files of examples that have none; says which."""
    written = []
    for name, (_, example) in EXAMPLES.items():
        path = FOLDER / f"{name}.hex"
        if not path.exists():
            path.write_text(codec.encode(example).hex() + "\n", encoding="ascii")
            written.append(name)
    return written


if __name__ == "__main__":
    print("\n".join(write_missing()) or "Nothing is missing.")

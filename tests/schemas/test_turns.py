"""A turn's moves: what the table allows, and that the statements in workers/storage make those and no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec

from schemas.context import ContextBundle, ModelChoice
from schemas.faults import EngineFailed
from schemas.ids import new_id
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.subjects import verdict
from schemas.turns import ENDS, MOVES, TurnState
from tests.workers.asked import asked
from tests.workers.storage.rows import add_session, add_turn, add_user
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.operation import Operation
from workers.storage.queries import SQL, load
from workers.storage.turn_rows import Claimed, NewMessage, Reply, ToolsClaimed, TurnEnd
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

S = TurnState
QUERIES = {name: query for path in SQL.glob("*.sql") for name, query in load(path.stem).items()}
EPOCH, ROUND, OWNER = 3, 1, new_id()
BUNDLE = ContextBundle(choice=ModelChoice(provider="p", model="m"))
END = TurnEnd(state="failed", epoch=EPOCH, shard=0, session_id="", shown_index=1, shown_length=1, shown_digest=1,
              finish_reasons=None, usage=None, fault=None)  # fmt: skip
REPLY = Reply(said=(), shown_index=0, shown_length=0, shown_digest=0, usage=Usage(), timings={})

LATER_WORK = {(S.CALLING_TOOLS, S.AWAITING_APPROVAL), (S.AWAITING_APPROVAL, S.CALLING_TOOLS)}
"""Moves that the table allows and no statement makes yet."""


class Row:
    """One turn in a state, and its session."""

    def __init__(self, turns: Turns, turn_id: str, user_id: str, session_id: str) -> None:
        self.turns, self.turn_id, self.user_id, self.session_id = turns, turn_id, user_id, session_id

    @property
    def claimed(self) -> Claimed:
        """The turn as its present owner holds it."""
        return Claimed(**self._held, attempts=1, arrival=b"", shown_index=0, shown_length=0, shown_digest=0, usage=None,
                       taken_over=False, created_at=0.0)  # fmt: skip

    @property
    def tools_claimed(self) -> ToolsClaimed:
        """The turn as its present owner holds it for its tools."""
        return ToolsClaimed(**self._held, personality_id=None)

    @property
    def _held(self) -> dict[str, Any]:
        ids = {"turn_id": self.turn_id, "user_id": self.user_id, "session_id": self.session_id}
        return ids | {"shard": 0, "epoch": EPOCH, "round": ROUND, "bundle": b""}


async def call_tools(row: Row) -> object:
    call = (new_id(), ToolCall(id="c", function=FunctionCall(name="clock")))
    return await row.turns.call_tools(
        row.claimed, REPLY, NewMessage(id=new_id(), role="assistant", content=None), [call]
    )


STATEMENTS: dict[str, list[Callable[[Row], Awaitable[object]]]] = {
    "prepare_turn": [lambda row: Arrivals(row.turns.database).prepare(row.turn_id, BUNDLE)],
    "claim_generation": [
        lambda row: row.turns.claim(row.turn_id, ROUND, OWNER),
        lambda row: row.turns.claim(row.turn_id, ROUND, new_id()),
    ],
    "let_go": [lambda row: row.turns.let_go([(row.turn_id, EPOCH)])],
    "finish_turn": [
        lambda row: row.turns.finish(row.claimed, S.COMPLETED, REPLY, []),
        lambda row: row.turns.finish(row.claimed, S.CANCELLED, REPLY, []),
        lambda row: row.turns.finish(row.claimed, S.FAILED, REPLY, [], fault=EngineFailed().record),
        lambda row: row.turns.finish(row.claimed, S.INTERRUPTED, REPLY, [], fault=EngineFailed().record),
    ],
    "call_tools": [call_tools],
    "claim_tools": [lambda row: row.turns.claim_tools(row.turn_id, ROUND, OWNER)],
    "finish_tools": [lambda row: row.turns.finish_tools(row.tools_claimed, [(new_id(), "c", "noon")])],
    "stop_turns": [lambda row: row.turns.stop(row.user_id, [row.turn_id])],
    "keep_shown": [lambda row: row.turns.keep_shown(row.turn_id, END, (), [])],
    "fail_turn": [lambda row: row.turns.fail(row.turn_id, EngineFailed().record)],
    "count_failure": [lambda row: row.turns.count_failure(row.turn_id)],
    "forgive": [lambda row: Operation(row.turns.database).forgive(row.turn_id)],
    "release_in_session": [lambda row: Arrivals(row.turns.database).release(row.session_id)],
    "release_of_user": [lambda row: Arrivals(row.turns.database, concurrent_turns=8).release(row.session_id)],
    "sweep": [lambda row: Upkeep(row.turns.database).sweep(0, 100, lease=3)],
    "not_driven": [lambda row: Upkeep(row.turns.database).not_driven([row.turn_id], 10)],
}
"""Every statement that updates a turn, as its method calls it."""
OWNERS = ("let_go", "finish_turn", "call_tools", "finish_tools")
"""Those that only an owner makes, by its claim's epoch."""


def moves() -> set[tuple[TurnState, TurnState]]:
    return {(state, after) for state, states in MOVES.items() for after in states}


def test_every_state_has_its_moves() -> None:
    assert MOVES.keys() == set(S)


def test_an_end_is_an_end() -> None:
    assert {state for state, after in MOVES.items() if not after} == ENDS


def test_every_turn_can_fail_and_be_stopped_and_be_reached() -> None:
    unended = set(S) - ENDS
    assert {state for state in unended if S.FAILED in MOVES[state]} == unended
    assert {state for state in unended if S.CANCELLED in MOVES[state]} == unended - {S.CALLING_TOOLS}
    assert set(S) - {after for _, after in moves()} == {S.QUEUED}


def test_a_turn_moves_on_before_it_moves_back() -> None:
    """The only way back is the next round's."""
    order = list(S)
    back = {(one, other) for one, other in moves() if order.index(other) < order.index(one)}
    assert back == {(S.CALLING_TOOLS, S.PREPARED), (S.AWAITING_APPROVAL, S.CALLING_TOOLS)}


def test_every_statement_that_updates_a_turn_is_tried_here() -> None:
    assert {name for name, query in QUERIES.items() if "UPDATE turns" in query} == STATEMENTS.keys()


async def made(
    database: Database, state: TurnState, act: Callable[[Row], Awaitable[object]], **columns: Any
) -> TurnState:
    """Where a turn in this state stands after the statement."""
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    held = {"state": state.value, "epoch": EPOCH, "round": ROUND, "owner": OWNER, "bundle": b""}
    turn_id = await add_turn(database, user_id, session_id, **held | columns)
    turns = Turns(database)
    await act(Row(turns, turn_id, user_id, session_id))
    stand = await turns.stand(turn_id)
    assert stand
    return TurnState(stand.state)


async def moved(database: Database, names: Iterable[str], **columns: Any) -> set[tuple[TurnState, TurnState]]:
    """Every move that these statements make, tried on a turn in each state."""
    ways = [way for name in names for way in STATEMENTS[name]]
    seen = {(state, await made(database, state, way, **columns)) for state, way in product(S, ways)}
    return {(one, other) for one, other in seen if one != other}


async def test_the_statements_make_the_moves_of_the_table_and_no_other(database: Database) -> None:
    assert await moved(database, STATEMENTS) == moves() - LATER_WORK


async def test_an_owner_that_was_followed_moves_nothing(database: Database) -> None:
    assert await moved(database, OWNERS, epoch=EPOCH + 1) == set()


async def test_a_stopped_turn_calls_no_tools(database: Database) -> None:
    stopped = await moved(database, STATEMENTS, stopped_at=datetime.now(UTC) - timedelta(minutes=1))
    assert stopped == moves() - LATER_WORK - {(S.GENERATING, S.CALLING_TOOLS)}


def test_the_running_states_are_the_same_everywhere() -> None:
    """One running turn a session: the index, the release and the sweep must agree on what running is."""
    running = "('accepted', 'prepared', 'generating', 'calling_tools')"
    for name in ("release_in_session", "release_of_user", "running_turns", "sweep", "sessions_standing_still"):
        assert running in QUERIES[name]


def test_a_state_is_stored_as_its_word() -> None:
    assert msgspec.json.encode(S.CALLING_TOOLS) == b'"calling_tools"'


def test_a_question_is_known_by_the_subject_its_verdict_is_told_under() -> None:
    assert asked(OWNER, verdict_subject=verdict("gateway", OWNER)).question == OWNER

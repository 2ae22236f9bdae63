"""What a scene looks at beside the audit: refusals that were none, and chats without an end."""

from __future__ import annotations

import pytest

from ops.drills.audit import Violation
from ops.drills.clients import Chat
from ops.drills.scene import FORGOTTEN, RAN_ANYWAY, unanswered
from tests.ops.drills.worlds import chat, world


def test_a_world_in_which_all_went_well_has_neither() -> None:
    assert unanswered(world()) == []


@pytest.mark.parametrize(
    ("one", "found"),
    [
        # The session of every chat in this world is one in which turns ran.
        (chat(9, turn_id="", state="refused", errors=["503 X"]), Violation(RAN_ANYWAY, "chat 9: 503 X")),
        (chat(9, turn_id="", state="", errors=["503 X", "gave up"]), Violation(FORGOTTEN, "chat 9: 503 X, gave up")),
    ],
)
def test_what_went_wrong_is_found(one: Chat, found: Violation) -> None:
    assert unanswered(world(chats=[one])) == [found]

"""One round of one turn in this worker's hands, unpacked."""

from __future__ import annotations

import msgspec

from schemas.context import ContextBundle
from schemas.openai import Message
from schemas.turns import TurnRequested
from workers.generation.takeover import Prefix
from workers.storage.turn_rows import Claimed


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when the model is asked. `steps`: what earlier rounds of this turn said and called."""

    claimed: Claimed
    arrival: TurnRequested
    bundle: ContextBundle
    steps: list[Message]
    prefix: Prefix

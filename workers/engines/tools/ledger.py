"""Two tools that only drills have: each writes into a ledger outside the system, which counts their effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from schemas.openai import FunctionSpec, Tool
from workers.engines.tools.port import RunnableTool, ToolFailed

LEDGER_URL = "COZY_DRILL_LEDGER_URL"
"""The variable that names the ledger. No setting: nobody but a drill has a use for it."""
REQUIRED = {"type": "object", "properties": {"entry": {"type": "string"}}, "required": ["entry"]}


class Ledger:
    """Writes an entry at `url`: with the call's key, and so as often as it likes, or without one, and so once."""

    def __init__(self, url: str, kind: str, *, idempotent: bool) -> None:
        self.idempotent = idempotent
        self.spec = Tool(
            function=FunctionSpec(name=f"ledger_{kind}", description="Write an entry.", parameters=REQUIRED)
        )
        self._url = f"{url}/{kind}"

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        """Written."""
        asked = {"entry": arguments.get("entry", ""), "key": key if self.idempotent else ""}
        try:
            async with aiohttp.ClientSession() as http, http.post(self._url, json=asked) as answer:
                answer.raise_for_status()
        except aiohttp.ClientError:
            raise ToolFailed("The ledger could not be reached.") from None
        return "It is written."


def ledgers(url: str) -> tuple[RunnableTool, ...]:
    """Both tools."""
    return (Ledger(url, "keyed", idempotent=True), Ledger(url, "once", idempotent=False))

"""Words that must never reach a log."""

from __future__ import annotations

import uuid
from pathlib import Path


class Canaries:
    """Words that were said, sent as keys or given to tools in this run, none of which may be in a log."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def word(self) -> str:
        """A word that nobody has used before."""
        self.words.append(f"canary{uuid.uuid4().hex[:16]}")
        return self.words[-1]

    def found_in(self, folder: Path) -> list[str]:
        """Where any of them is: file and word."""
        texts = {path.name: path.read_text(errors="replace") for path in folder.iterdir()}
        return [f"{name}: {word}" for name, text in texts.items() for word in self.words if word in text]

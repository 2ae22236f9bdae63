"""Pure: the seam where a model goes on from its own text, having been asked in words to do so.

A model that is only asked to continue opens with a preamble, says its last sentence again, or leaves out the space
between two words. So it is given its text without the last few words and told to begin with exactly these: whatever
comes before this anchor is dropped, and what follows it fits, wherever the text was cut.
"""

from __future__ import annotations

import re

ANCHOR = 40
"""Characters that the model is asked to begin with; more where they would not be the only such place."""
ANCHOR_MAX = 160
WORD_MAX = 24
"""Characters to look back for the beginning of a word."""
SURE_ANCHOR = 12
"""Characters of an anchor that turns up nowhere by chance. Before a shorter one only a known opening may stand."""
WINDOW = 200
"""Characters beside the anchor in which it must turn up; then the model has not done what it was asked."""
PREAMBLE = re.compile(
    r"\s*(?:(?:sure|certainly|of course|okay|ok|absolutely|right|understood|here)\b[^\n:…]{0,80}?)?"
    r"\b(?:continu\w*|going on|resum\w*|the rest|left off|pick\w* up)\b[^\n:.!…]{0,80}(?::|\.{3}|…|[.!]\n)\s*",
    re.IGNORECASE,
)
SURE_OVERLAP = 8
"""Characters said again that cannot be a coincidence."""
TAG = "</last_words>"
SPACED = 0x2E80
"""Scripts from here on (Chinese, Japanese) are written without spaces between words."""


def parted(prefix: str) -> tuple[str, str]:
    """What the model is given as said, and the anchor it is asked to begin with; together they are the prefix.

    The anchor begins with a word where words can be told, and is the only place of its kind where one can be found.
    """
    # A model is given a beginning to go on from, if it is one character.
    start = max(min(1, len(prefix) - 1), len(prefix) - ANCHOR)
    while True:
        start = _word_start(prefix, start)
        anchor = prefix[start:]
        longer = start - ANCHOR
        # Blanks alone are no anchor; and what the text has twice could be taken for its first place.
        if (anchor.strip() and prefix.find(anchor.strip()) >= start) or longer < 1 or len(prefix) - longer > ANCHOR_MAX:
            return prefix[:start], anchor
        start = longer


def _word_start(text: str, start: int) -> int:
    """The beginning of the word that `start` is in, if it is near; in front of a blank, of the word before it."""
    for place in range(start, max(0, start - WORD_MAX), -1):
        if place < len(text) and not text[place].isspace() and text[place - 1].isspace():
            return place
    return start


def wish(anchor: str) -> str:
    """What the model is asked for. It begins with "Continue", which stands-ins for models listen for."""
    return (
        "Continue your last message: it broke off in the middle, and its last words were lost. They were:\n"
        f"<last_words>{anchor}{TAG}\n"
        "Begin with exactly these last words, without the tags, and go straight on from them, in the same language, "
        "tone and format. Say nothing else: no greeting, no remark about continuing, nothing said before them."
    )


class Seam:
    """Takes what the model says at first and gives what may be shown behind `prefix`. Used until `decided`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._given, self._anchor = parted(prefix)
        self._pattern = re.compile(r"\s+".join(map(re.escape, self._anchor.split())))
        self._held = ""
        self.decided = False
        self.dropped = 0
        """Characters of the model's that are not shown."""

    def feed(self, text: str) -> str:
        """What may be shown, empty while that cannot be known yet."""
        self._held += text
        rest = self._behind_anchor()
        if rest is not None:
            # Blanks, or the beginning of a tag said along: not yet known how it goes on.
            return "" if TAG.startswith(rest.strip()) else self._decide(rest)
        # A model that says its own text again, however much of it, may still come to its end.
        if len(self._held) < WINDOW + len(self._anchor) or self._held.strip() in self._prefix:
            return ""
        return self._decide(self._guessed(self._held))

    def end(self) -> str:
        """What may be shown of the rest: the model has said all it will say."""
        if self.decided:
            return ""
        rest = self._behind_anchor()
        return self._decide(self._guessed(self._held) if rest is None else rest)

    def _behind_anchor(self) -> str | None:
        if not self._anchor.strip():
            return None
        at = 0
        while found := self._pattern.search(self._held, at):
            if len(self._anchor) >= SURE_ANCHOR or self._is_opening(self._held[: found.start()]):
                rest = self._held[found.end() :]
                tagged = rest.lstrip().startswith(TAG)
                return rest.lstrip()[len(TAG) :] if tagged else _joined(self._prefix, rest)
            at = found.start() + 1
        return None

    def _is_opening(self, said: str) -> bool:
        """Whether models begin like this: with nothing, the tag, a preamble, or some of their last words again."""
        plain = said.strip()
        return (
            plain in ("", TAG.replace("/", ""))
            or bool(PREAMBLE.fullmatch(said))
            or self._given.rstrip().endswith(plain)
        )

    def _decide(self, shown: str) -> str:
        self.decided = True
        self.dropped = max(0, len(self._held) - len(shown))
        return shown

    def _guessed(self, said: str) -> str:
        """Without the anchor: no preamble, nothing said twice, and a space where two words would become one."""
        opening = PREAMBLE.match(said)
        said = said[opening.end() :] if opening else said
        overlap = _overlap(self._prefix, said.lstrip())
        if overlap:
            return _joined(self._prefix, said.lstrip()[overlap:])
        if not said.strip():
            return ""
        glued = self._prefix[-1:].isalnum() and said[0].isalnum() and ord(said[0]) < SPACED
        after_stop = self._prefix[-1:] in tuple(".,;:!?") and said[0].isalpha() and ord(said[0]) < SPACED
        return _joined(self._prefix, f" {said}" if glued or after_stop else said)


def _joined(prefix: str, rest: str) -> str:
    """`rest` behind the prefix: blanks that the prefix ends with are not shown twice."""
    blanks = prefix[len(prefix.rstrip()) :]
    if not blanks:
        return rest
    return rest[len(blanks) :] if rest.startswith(blanks) else rest.lstrip()


def _overlap(prefix: str, said: str) -> int:
    """How many characters of `said` the prefix ends with: a whole last word, or too many for a coincidence."""
    end = prefix.rstrip()
    for length in range(min(len(end), len(said)), 0, -1):
        if end.endswith(said[:length]):
            whole = length == len(end) or end[-length - 1].isspace()
            return length if length >= SURE_OVERLAP or (whole and length >= 3) else 0
    return 0

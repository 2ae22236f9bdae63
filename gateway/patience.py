"""Pure: how long a reader waits for what is missing, and when it looks elsewhere. Times are the loop's clock."""

from __future__ import annotations

OWNER_PATIENCE = 0.5
"""Seconds a reader that comes late waits for the owner's snapshot before it reads the stream."""
GAP_WAIT = 1.0
"""Seconds between two tries to close a gap: the stream is read again, and the reply's owner asked for a snapshot."""
GAP_PATIENCE = 3.0
"""Seconds of a gap after which PostgreSQL is asked as well."""
GAP_WAIT_LONG = 10.0
"""Seconds between two tries from then on."""
SILENCE = (10.0, 20.0, 30.0)
"""Seconds of silence after which we look whether the turn has ended without our hearing of it; the last repeats."""


class Patience:
    """One reader's."""

    def __init__(self) -> None:
        self.next_try = 0.0
        """When what is missing is read back."""
        self.next_look = 0.0
        """When a silence has lasted too long; 0 where nobody has waited yet."""
        self._silences = 0
        self._gap_since: float | None = None
        self._wanted_at = float("-inf")

    def mind_gap(self, now: float) -> None:
        """Something is missing. The first try is at once."""
        if self._gap_since is None:
            self._gap_since = self.next_try = now

    def no_gap(self) -> None:
        """Nothing is missing."""
        self._gap_since = None

    def wait_for_owner(self, now: float) -> None:
        """Something may be missing, and its owner is asked before anything else."""
        self._gap_since, self.next_try = now, now + OWNER_PATIENCE

    def is_time(self, now: float) -> bool:
        """Whether what is missing is to be read back. Who is told yes does so: it is not time again at once."""
        is_time = now >= self.next_try
        if is_time:
            self.tried(now)
        return is_time

    def tried(self, now: float) -> float:
        """It was looked for what is missing. The seconds that it has been missing."""
        waited = now - (self._gap_since or now)
        self.next_try = now + (GAP_WAIT if waited < GAP_PATIENCE else GAP_WAIT_LONG)
        return waited

    def may_want(self, now: float) -> bool:
        """Whether the owner may be asked again. Who is told yes has asked."""
        may = now - self._wanted_at >= GAP_WAIT
        if may:
            self._wanted_at = now
        return may

    def something_new(self) -> None:
        """No silence any more."""
        self._silences, self.next_look = 0, 0.0

    def silent(self, now: float) -> float:
        """Until when to wait. A silence is counted over waits, which may all be shorter."""
        self.next_look = self.next_look or now + SILENCE[min(self._silences, len(SILENCE) - 1)]
        return self.next_look

    def looked(self) -> None:
        """It is looked elsewhere now: the next silence may be longer."""
        self._silences, self.next_look = self._silences + 1, 0.0

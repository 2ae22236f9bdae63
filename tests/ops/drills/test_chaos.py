"""A short chaos: what the long drills prove is tried each time the tests run."""

from __future__ import annotations

from ops.drills import chaos

FAULTS = ["--kills", "10", "--gateways", "1", "--nats", "1", "--postgres", "1", "--freezes", "1"]
SIZE = ["--chats", "200", "--seconds", "25", "--tokens", "24"]
# Beside other tests a machine may take long to start a process again; how long readers wait is the long drills' figure.
PATIENT = ["--stall", "30"]


def test_nothing_is_lost_doubled_or_changed_whatever_dies() -> None:
    assert chaos.main([*SIZE, *FAULTS, *PATIENT, "--seed", "7"]) == 0

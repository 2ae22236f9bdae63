"""Drills: faults on purpose against a running system, and proof from outside that the promise was kept."""

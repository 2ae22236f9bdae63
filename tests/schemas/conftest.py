"""How properties are tried here; see tests/properties.py."""

from __future__ import annotations

from tests import properties

properties.settle()

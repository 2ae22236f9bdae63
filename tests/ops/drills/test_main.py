"""`python -m ops.drills` knows every drill, and says which is not there."""

from __future__ import annotations

import importlib

import pytest

from ops.drills import __main__ as drills


@pytest.mark.parametrize("name", drills.DRILLS)
def test_every_drill_is_there(name: str) -> None:
    assert callable(importlib.import_module(f"ops.drills.{name}").main)


def test_a_drill_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert drills.main(["chaoss"]) == drills.WRONG_NAME
    assert "no drill 'chaoss'" in capsys.readouterr().err


def test_help_lists_every_drill(capsys: pytest.CaptureFixture[str]) -> None:
    assert drills.main(["--help"]) == 0
    assert set(drills.DRILLS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("codes", "code"), [((0, drills.NOT_RUN), 0), ((0, 1), 1), ((0, drills.INTERRUPTED), drills.INTERRUPTED)]
)
def test_all_drills_are_kept_only_if_each_is_or_cannot_be_run(
    codes: tuple[int, int], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = dict(zip(("one", "two"), codes, strict=True))
    monkeypatch.setattr(drills, "DRILLS", dict.fromkeys(given, "a drill"))
    monkeypatch.setattr(drills, "run", lambda name, options: given[name])
    assert drills.main([]) == code
    assert ("one         kept" in capsys.readouterr().out) is (code != drills.INTERRUPTED)


def test_a_drill_that_breaks_off_keeps_none_of_the_others_from_being_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, options: list[str]) -> int:
        if name == "one":
            raise LookupError(name)
        return 0

    monkeypatch.setattr(drills, "DRILLS", {"one": "breaks off", "two": "a drill"})
    monkeypatch.setattr(drills, "run", run)
    assert drills.main([]) == 1
    assert "one         BROKEN (2)\n  two         kept" in capsys.readouterr().out

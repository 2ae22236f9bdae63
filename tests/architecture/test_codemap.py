"""ARCHITECTURE.md's code map is true.

The form: a section `## Code map`, in it one line a folder: "- `workers/storage/` - the only SQL in the house". The path
is from the project's root and ends in a slash. Every folder that holds Python files (tests aside) is on the map, once;
another folder may be, if it exists.
"""

from __future__ import annotations

import pytest

from tests.architecture.codemap import NoCodeMap, mapped, untrue
from tests.architecture.source import PRODUCT, ROOT

PAGE = """# Architecture

- `elsewhere/` - not on the map

## Code map

Read it from the top.

- `gateway/` - the HTTP edge
- `ops/config/` - the shipped settings
- `workers/storage/` - the only SQL in the house

## Next

- `later/` - not on the map
"""
PACKAGES, FOLDERS = ["gateway", "workers/storage"], ["gateway", "ops/config", "tests", "workers/storage"]


def folders() -> set[str]:
    """Every folder of the project that is ours, by path."""
    tops = (ROOT / top for top in (*PRODUCT, "tests"))
    found = [folder for top in tops for folder in (top, *top.rglob("*")) if folder.is_dir()]
    return {folder.relative_to(ROOT).as_posix() for folder in found if "__pycache__" not in folder.parts}


def packages() -> set[str]:
    """Those that hold Python files, tests aside."""
    return {path for path in folders() if path.partition("/")[0] != "tests" and any((ROOT / path).glob("*.py"))}


def test_the_code_map_is_true() -> None:
    assert untrue((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), packages(), folders()) == []


def test_packages_are_found() -> None:
    assert packages() >= {"gateway", "schemas", "ops/runtime", "workers/storage", "workers/engines/ai"}


def test_no_other_top_level_folder_holds_python() -> None:
    tops = {path.parent.name for path in ROOT.glob("[!.]*/*.py")}
    assert tops <= {*PRODUCT, "tests"}


def test_a_true_map_is_let_be() -> None:
    assert mapped(PAGE) == ["gateway", "ops/config", "workers/storage"]
    assert untrue(PAGE, PACKAGES, FOLDERS) == []


def test_a_package_that_is_not_on_the_map_is_found() -> None:
    assert untrue(PAGE, [*PACKAGES, "schemas"], [*FOLDERS, "schemas"]) == ["schemas is missing"]


def test_a_folder_that_does_not_exist_is_found() -> None:
    assert untrue(PAGE, ["gateway"], ["gateway", "ops/config"]) == ["workers/storage does not exist"]


def test_a_folder_that_is_listed_twice_is_found() -> None:
    twice = PAGE.replace("- `ops/config/` - the", "- `gateway/` - again\n- `ops/config/` - the")
    assert untrue(twice, PACKAGES, FOLDERS) == ["gateway is listed 2 times"]


@pytest.mark.parametrize("line", ["- `gateway/`", "- gateway/ - the edge", "- `gateway` - the edge", "`gateway/` - x"])
def test_a_line_in_another_form_is_not_taken_for_an_entry(line: str) -> None:
    assert untrue(PAGE.replace("- `gateway/` - the HTTP edge", line), PACKAGES, FOLDERS) == ["gateway is missing"]


def test_a_page_without_a_map_is_told_so() -> None:
    with pytest.raises(NoCodeMap):
        mapped("# Architecture\n")

"""ops/local/procfile.py."""

import pytest

from ops.local.launch_settings import PROJECT
from ops.local.procfile import ProcfileError, instances, parse_pools, parse_procfile


def test_a_command_is_split_as_a_shell_would_and_comments_are_left_out() -> None:
    text = '# ours\n\nrelease: python -m ops release\nodd_one-2:  python -c "a b" # not a comment\n'
    assert parse_procfile(text) == {
        "release": ["python", "-m", "ops", "release"],
        "odd_one-2": ["python", "-c", "a b", "#", "not", "a", "comment"],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gateway python", "Procfile line 3: expected `name: command`, got 'gateway python'"),
        ("gateway:", "Procfile line 3: expected `name: command`, got 'gateway:'"),
        ("gate way: x", "Procfile line 3: expected `name: command`, got 'gate way: x'"),
        ("gateway: x 'y", "Procfile line 3: No closing quotation"),
        ("first: again", "Procfile line 3: 'first' is there already"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str) -> None:
    with pytest.raises(ProcfileError, match="Procfile line 3") as caught:
        parse_procfile(f"first: x\n\n{line}\n")
    assert str(caught.value) == message


def test_our_procfile_runs_each_stage_by_its_one_word() -> None:
    commands = parse_procfile((PROJECT / "Procfile").read_text())
    stages = ["context_fetch", "generation", "tool_execution", "memory_writeback", "records"]
    assert commands == {
        "release": ["python", "-m", "ops", "release"],
        "gateway": ["python", "-m", "gateway"],
        **{stage: ["python", "-m", f"workers.{stage}"] for stage in stages},
    }


def test_pools_are_read_from_a_list() -> None:
    assert parse_pools(" generation=2, gateway=0,") == {"generation": 2, "gateway": 0}


@pytest.mark.parametrize("text", ["generation", "generation=two", "generation=-1", "=2"])
def test_a_senseless_pool_is_quoted(text: str) -> None:
    with pytest.raises(ProcfileError, match=f"got '{text}'"):
        parse_pools(text)


def test_a_pool_of_two_gets_a_second_name_and_release_is_no_pool() -> None:
    commands = {"release": ["r"], "gateway": ["g"], "records": ["x"], "generation": ["n"]}
    assert instances(commands, {"generation": 2, "records": 0}) == {
        "gateway": ["g"],
        "generation": ["n"],
        "generation.2": ["n"],
    }


@pytest.mark.parametrize("name", ["genration", "release"])
def test_a_pool_that_is_not_in_the_procfile_is_refused(name: str) -> None:
    with pytest.raises(ProcfileError, match=f"no process '{name}' in the Procfile, which has gateway"):
        instances({"release": ["r"], "gateway": ["g"]}, {name: 2})

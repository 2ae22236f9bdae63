"""The load program as a command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.load.chat import main
from tests.ops.load.conftest import Server

ROOT = Path(__file__).parents[3]


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.load.chat", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT, check=False)


def test_figures_of_both_servers_and_all_processes_come_as_json(
    server: Server, other_server: Server, tmp_path: Path
) -> None:
    run_json = tmp_path / "run.json"
    entries = [("gateway", server), ("scripted", other_server)]
    run_json.write_text(json.dumps([{"name": n, "pid": s.pid, "url": s.url} for n, s in entries]))
    done = load(
        *("--url", server.url, "--key", "sk-secret", "--model", "good", "--requests", "4", "--tokens", "5"),
        *("--compare", other_server.url, "--compare-model", "no-usage", "--run-json", str(run_json), "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["plan"]["requests"] == 4
    assert (report["target"]["ok"], report["target"]["counted_by"]) == (4, "usage")
    assert (report["compare"]["ok"], report["compare"]["counted_by"]) == (4, "events")
    expected = report["target"]["requests_per_s"] / report["compare"]["requests_per_s"]
    assert report["ratios"]["requests/s"] == pytest.approx(expected)
    added = report["target"]["ttft_ms"]["p50"] - report["compare"]["ttft_ms"]["p50"]
    assert report["added_ttft_ms"]["p50"] == pytest.approx(added)
    assert [one["name"] for one in report["processes"]["each"]] == ["gateway", "scripted"]
    assert set(server.seen()["keys"]) == {"Bearer sk-secret"}
    assert set(other_server.seen()["keys"]) == {None}
    assert "secret" not in done.stdout


def test_the_table_shows_the_figures_the_notes_and_the_errors(server: Server, tmp_path: Path) -> None:
    run_json = tmp_path / "run.json"
    run_json.write_text(json.dumps([{"name": "gateway", "pid": server.pid}]))
    done = load(
        *("--url", server.url, "--model", "no-usage", "--requests", "4", "--tokens", "5"),
        *("--compare", server.url, "--compare-model", "error-event", "--run-json", str(run_json)),
    )
    assert done.returncode == 1
    rows = {line[:20].strip(): line[20:].split() for line in done.stdout.splitlines()}
    assert rows["requests whole"] == ["4", "0"]
    assert rows["requests failed"] == ["0", "4"]
    assert rows["tokens"] == ["20", "0"]
    assert f"note: {server.url} sent no usage" in done.stdout
    assert f"error: {server.url} 4 x stream error ENGINE_FAILED" in done.stdout
    assert "tokens per CPU-second" in done.stdout
    assert "a secret" not in done.stdout


def test_a_run_that_cannot_be_made_says_why_and_exits_with_two(server: Server, tmp_path: Path) -> None:
    done = load("--url", server.url, "--run-json", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert "none.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://example.com"], "only loopback addresses"),
        (["--url", "http://127.0.0.1", "--compare", "http://example.com"], "only loopback addresses"),
        (["--url", "http://127.0.0.1", "--requests", "1000001"], "expected 1 to 1000000"),
        (["--url", "http://127.0.0.1", "--requests", "0"], "expected 1 to 1000000"),
        (["--url", "http://127.0.0.1", "--tokens", "many"], "--tokens"),
        (["--url", "http://127.0.0.1", "--pace", "0"], "expected a number above 0"),
        (["--url", "http://127.0.0.1", "--pace", "nan"], "expected a number above 0"),
        (["--url", "http://127.0.0.1", "--sessions", "--no-session"], "not allowed with"),
    ],
)
def test_a_senseless_command_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err

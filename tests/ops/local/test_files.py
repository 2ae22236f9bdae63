"""ops/local/files.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.files import FileLock, InUse, NotOurs, make_folder, refuse_another_users, user_name, write_private

HOLD = """
import sys; from pathlib import Path; from ops.local.files import FileLock
lock = FileLock(Path(sys.argv[1])); print("held", flush=True); sys.stdin.read()
"""


def test_what_is_written_is_for_its_owner_alone_even_over_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o644)
    write_private(path, "words")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("words", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", 0o711)
    make_folder(tmp_path / "a" / "b", 0o700)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o711


def test_a_lock_has_one_holder_and_leaves_no_file_when_released(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "up.lock")
    with pytest.raises(InUse):
        FileLock(tmp_path / "up.lock")
    lock.release()
    assert list(tmp_path.iterdir()) == []
    FileLock(tmp_path / "up.lock").release()


def test_a_lock_ends_with_its_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InUse):
            FileLock(path)
        holder.kill()
    FileLock(path).release()


def test_a_data_folder_of_our_own_and_a_fresh_one_are_let_be(tmp_path: Path) -> None:
    refuse_another_users(tmp_path)
    write_private(tmp_path / "nats.password", "x")
    refuse_another_users(tmp_path)


@pytest.mark.parametrize("made", ["nats.password", "logs"])
def test_a_data_folder_that_another_user_has_started_on_is_refused(
    tmp_path: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / made).mkdir()
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(NotOurs, match=rf"folder of user {user_name(ours)}, and you are 54321: .*DATA_DIR"):
        refuse_another_users(tmp_path)

"""ops/local/postgres_home.py."""

import os
import shutil
from pathlib import Path

import pytest

from ops.local import postgres_home as module
from ops.local.child import Program, run_to_end
from ops.local.embedded import ServerFailed
from ops.local.postgres_home import Account, can_reach, find_home, installed_programs, service_account

STRANGER = Account(uid=54321, gid=54321)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL needs another user")


def test_a_folder_below_a_closed_one_cannot_be_reached(folder: Path) -> None:
    (folder / "home" / "inner").mkdir(parents=True)
    (folder / "home").chmod(0o711)
    assert can_reach(folder / "home" / "inner", STRANGER)
    (folder / "home").chmod(0o710)
    assert not can_reach(folder / "home" / "inner", STRANGER)
    ours = Account(uid=os.geteuid(), gid=os.getegid())
    assert can_reach(folder / "home" / "inner", ours)


def test_a_link_is_judged_by_where_it_leads(folder: Path) -> None:
    (folder / "home").mkdir()
    (folder / "open").mkdir(mode=0o755)
    (folder / "home" / "link").symlink_to(folder / "open")
    (folder / "home").chmod(0o700)
    assert can_reach(folder / "home" / "link", STRANGER)


def test_a_database_that_is_gone_is_not_replaced_by_an_empty_one(folder: Path) -> None:
    (folder / "postgres").symlink_to(folder / "elsewhere")
    with pytest.raises(ServerFailed, match="is gone"):
        find_home(folder)


@only_root
def test_a_data_folder_that_can_be_reached_keeps_the_data(folder: Path) -> None:
    home = find_home(folder, folder / "shelter")
    assert (home.data, home.account) == (folder / "postgres", service_account())
    assert not (folder / "shelter" / "postgres").exists()


@only_root
def test_an_existing_database_is_run_by_the_user_who_made_it(folder: Path) -> None:
    (folder / "postgres").mkdir()
    os.chown(folder / "postgres", 12345, 54321)
    assert find_home(folder, folder / "shelter").account == Account(uid=12345, gid=54321)


@only_root
def test_the_place_is_found_again_by_a_moved_data_folder_and_not_given_to_a_new_one(folder: Path) -> None:
    (folder / "home" / "data").mkdir(parents=True)
    (folder / "home").chmod(0o700)
    first = find_home(folder / "home" / "data", folder / "shelter")
    (first.data / "PG_VERSION").write_text("18\n")
    (folder / "home" / "data").rename(folder / "home" / "moved")
    assert find_home(folder / "home" / "moved", folder / "shelter").data == first.data
    (folder / "home" / "data").mkdir()
    fresh = find_home(folder / "home" / "data", folder / "shelter")
    assert not (fresh.data / "PG_VERSION").exists()
    aside = [note for note in fresh.notes if "set aside" in note]
    assert len(aside) == 1
    assert (Path(aside[0].split()[-1].rstrip(".")) / "postgres" / "PG_VERSION").exists()


@only_root
async def test_programs_out_of_reach_are_copied_once_and_still_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "home" / "site-packages"
    package = installed_programs().parent.parent
    for name in (package.name, f"{package.name}.libs"):
        ignored = shutil.ignore_patterns("pginstall", "include")
        shutil.copytree(package.with_name(name), closed / name, ignore=ignored)
    (folder / "home").chmod(0o700)
    monkeypatch.setattr(module, "installed_programs", lambda: closed / package.name / "pginstall18" / "bin")
    home = find_home(folder, folder / "shelter")
    assert home.programs.is_relative_to(folder / "shelter")
    assert home.account is not None
    argv = [str(home.programs / "initdb"), "--version"]
    user = (home.account.uid, home.account.gid)
    initdb = await run_to_end(
        Program(name="initdb", argv=argv, env={}, log=folder / "log", cwd=Path("/"), user=user), 10
    )
    assert "initdb (PostgreSQL) 18" in initdb.last_words()
    made = home.programs.stat().st_mtime_ns
    assert find_home(folder, folder / "shelter").programs.stat().st_mtime_ns == made
    assert (folder / "home").stat().st_mode & 0o777 == 0o700

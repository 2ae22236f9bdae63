"""The commands about keys, as typed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from ops.commands._servers import CannotRun, find_addresses
from ops.commands.keys import main
from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.records import CallersRevoked
from tests.ops.commands.conftest import Ops
from workers.storage.callers import Callers
from workers.storage.database import Database
from workers.storage.keys import Keys

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def keys(ops: Ops) -> Ops:
    """`python -m ops keys ...` on the test's servers."""
    return partial(ops, "keys")


def sha256(key: str) -> str:
    return hashlib.sha256(key.strip().encode()).hexdigest()


async def test_create_prints_a_key_whose_hash_alone_is_stored(keys: Ops, database: Database) -> None:
    made = await keys("create", "--user", "ann")
    assert made.status == 0
    assert made.out.startswith("sk-cozy-")
    assert len(made.out.strip()) == len("sk-cozy-") + 43
    found = await Callers(database).find_key(sha256(made.out))
    assert found is not None
    assert (found.role, found.active, found.revoked, found.expired) == ("user", True, False, False)
    assert made.out.strip() not in (await keys("list")).out


async def test_create_makes_an_admin_where_asked(keys: Ops, database: Database) -> None:
    made = await keys("create", "--user", "ann", "--role", "admin")
    found = await Callers(database).find_key(sha256(made.out))
    assert found is not None
    assert found.role == "admin"


async def test_a_second_key_is_the_same_users(keys: Ops, database: Database) -> None:
    hashes = [sha256((await keys("create", "--user", "ann")).out) for _ in range(2)]
    assert len(set(hashes)) == 2
    found = [await Callers(database).find_key(key_hash) for key_hash in hashes]
    assert len({row.user_id for row in found if row}) == 1


async def test_create_does_not_change_a_users_role(keys: Ops) -> None:
    await keys("create", "--user", "ann")
    refused = await keys("create", "--user", "ann", "--role", "admin")
    assert (refused.status, refused.out) == (1, "")
    assert "exists with role user" in refused.err


async def test_create_refuses_a_key_for_a_user_who_is_not_active(keys: Ops, database: Database) -> None:
    await keys("create", "--user", "ann")
    await database.run("UPDATE users SET status = 'inactive'", {})
    refused = await keys("create", "--user", "ann")
    assert (refused.status, refused.out) == (1, "")
    assert "not active" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "--user", " "],
        ["create", "--user", "a\0b"],
        ["create", "--user", "a", "--role", "king"],
        ["create", "--user", "a", "--expires-days", "0"],
        ["create", "--user", "a", "--expires-days", "soon"],
        ["revoke"],
        [],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


async def test_list_shows_each_key_and_its_state(keys: Ops, database: Database) -> None:
    await keys("create", "--user", "ann", "--expires-days", "3")
    await keys("create", "--user", "ben", "--role", "admin")
    [ann, ben] = await Keys(database).listed(None)
    await keys("revoke", ben.id)
    [head, first, second] = [line.split() for line in (await keys("list")).out.splitlines()]
    assert head[:4] == ["ID", "PREFIX", "USER", "ROLE"]
    assert (first[:4], first[5], first[-1]) == ([ann.id, ann.prefix, "ann", "user"], "never", "active")
    assert (second[:4], second[-1]) == ([ben.id, ben.prefix, "ben", "admin"], "revoked")


async def test_list_can_be_one_users(keys: Ops) -> None:
    await keys("create", "--user", "ann")
    await keys("create", "--user", "ben")
    listed = await keys("list", "--user", "ben")
    assert [line.split()[2] for line in listed.out.splitlines()] == ["USER", "ben"]


@pytest.fixture
async def revocations(nats_url: str) -> AsyncIterator[asyncio.Queue[CallersRevoked]]:
    """What a gateway hears."""
    heard: asyncio.Queue[CallersRevoked] = asyncio.Queue()
    bus = await Bus.connect(nats_url, "gateway")
    await bus.listen(subjects.CALLERS_REVOKED, lambda _, data: heard.put_nowait(codec.decode(data, CallersRevoked)))
    await bus.flush()
    yield heard
    await bus.close()


@pytest.mark.parametrize("named_by", ["id", "prefix"])
async def test_revoke_ends_the_key_and_tells_every_gateway(
    keys: Ops, database: Database, revocations: asyncio.Queue[CallersRevoked], named_by: str
) -> None:
    key = (await keys("create", "--user", "ann")).out
    [listed] = await Keys(database).listed(None)
    said = await keys("revoke", getattr(listed, named_by))
    assert said.status == 0
    assert await asyncio.wait_for(revocations.get(), 5) == CallersRevoked(key_hash=sha256(key))
    found = await Callers(database).find_key(sha256(key))
    assert found is not None
    assert found.revoked


async def test_revoke_without_nats_ends_the_key_and_says_that_gateways_do_not_know(
    keys: Ops, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys("create", "--user", "ann")
    [key] = await Keys(database).listed(None)
    monkeypatch.setenv("NATS_URL", NOWHERE)
    said = await keys("revoke", key.id)
    assert said.status == 1
    assert "is revoked" in said.out
    assert "NATS cannot be reached" in said.err
    assert [key.state for key in await Keys(database).listed(None)] == ["revoked"]


async def test_revoking_again_tells_the_gateways_again(
    keys: Ops, database: Database, revocations: asyncio.Queue[CallersRevoked], monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys("create", "--user", "ann")
    [key] = await Keys(database).listed(None)
    with monkeypatch.context() as away:
        away.setenv("NATS_URL", NOWHERE)
        await keys("revoke", key.id)
    assert (await keys("revoke", key.id)).status == 0
    assert await asyncio.wait_for(revocations.get(), 5) == CallersRevoked(key_hash=key.key_hash)


@pytest.mark.parametrize("named", ["nobody", new_id(), "' OR true --"], ids=["name", "id", "sql"])
async def test_revoke_says_when_there_is_no_such_key(keys: Ops, named: str) -> None:
    said = await keys("revoke", named)
    assert said.status == 1
    assert "there is no key" in said.err


async def test_a_prefix_that_means_two_keys_revokes_neither(keys: Ops, database: Database) -> None:
    await keys("create", "--user", "ann")
    await keys("create", "--user", "ann")
    await database.run("UPDATE api_keys SET prefix = 'sk-cozy-same'", {})
    said = await keys("revoke", "sk-cozy-same")
    assert said.status == 1
    assert all(key.id in said.err for key in await Keys(database).listed(None))
    assert {key.state for key in await Keys(database).listed(None)} == {"active"}


async def test_a_database_without_tables_is_told_as_such(keys: Ops, database: Database) -> None:
    await database.run("ALTER TABLE api_keys RENAME TO elsewhere", {})
    said = await keys("list")
    assert said.status == 1
    assert "python -m ops release" in said.err


async def test_a_database_that_does_not_answer_is_told_without_its_address(
    keys: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://cozy:secret@127.0.0.1:1/cozy")
    said = await keys("list")
    assert said.status == 1
    assert "does not answer" in said.err
    assert "secret" not in said.err


def run_json(folder: Path, entries: list[dict[str, object]]) -> dict[str, str]:
    (folder / "run.json").write_bytes(msgspec.json.encode(entries))
    return {"DATA_DIR": str(folder)}


def test_addresses_come_from_what_make_run_started(tmp_path: Path) -> None:
    environ = run_json(tmp_path, [{"name": "nats", "pid": 1, "url": "n"}, {"name": "postgres", "pid": 2, "url": "p"}])
    found = find_addresses(environ)
    assert (found.database_url, found.nats_url) == ("p", "n")


def test_the_environment_names_other_servers_than_make_run_started(tmp_path: Path) -> None:
    environ = run_json(tmp_path, [{"name": "nats", "pid": 1, "url": "n"}, {"name": "postgres", "pid": 2, "url": "p"}])
    found = find_addresses(environ | {"DATABASE_URL": "d", "NATS_URL": "b"})
    assert (found.database_url, found.nats_url) == ("d", "b")


def test_without_any_address_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"DATABASE_URL is not set.*run\.json"):
        find_addresses({"DATA_DIR": str(tmp_path)})


def test_a_run_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CannotRun, match="cannot be read"):
        find_addresses({"DATA_DIR": str(tmp_path)})

"""The page at `/` in a real browser: talk, stop, reload, and nothing of a reply ever becomes markup."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import page
from ops.local.embedded_nats import EmbeddedNats
from schemas.faults import EngineFailed, SessionBusy
from tests.gateway import chromium
from tests.gateway.chromium import Browser, Tab
from tests.gateway.conftest import Running, connected, running
from tests.gateway.peers import AskedTurn, RecordsPeer, StagesPeer
from tests.gateway.shelf import Shelf

IDLE = "document.body.dataset.state === 'idle'"
SAID = "[...document.querySelectorAll('article')].map((each) => each.querySelector('p').textContent)"


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    binary = chromium.found()
    if binary is None:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("no Chromium on this machine: install the package chromium to test the page")
    browser = Browser(binary, tmp_path_factory.mktemp("chromium"))
    yield browser
    await browser.close()


@pytest.fixture
async def shelf(records: RecordsPeer) -> Shelf:
    return Shelf(records)


@pytest.fixture
async def stages(nats: EmbeddedNats) -> AsyncIterator[StagesPeer]:
    peer = StagesPeer()
    await peer.open(nats.url)
    yield peer
    await peer.close()


@pytest.fixture(scope="module")
async def development(nats: EmbeddedNats, settings_folder: Path) -> AsyncIterator[Running]:
    async with running(nats.url, settings_folder, APP_ENV="development", COZY_API__STREAM_GRACE="1") as found:
        yield await connected(found)


@pytest.fixture
async def tab(browser: Browser, development: Running, shelf: Shelf) -> AsyncIterator[Tab]:
    """The page, opened by somebody who was never there."""
    tab = await browser.tab()
    await tab.go(development.url)
    await tab.until("document.querySelectorAll('option').length === 2")
    yield tab
    assert tab.errors == []
    await tab.close()


async def ask(tab: Tab, stages: StagesPeer, text: str) -> AskedTurn:
    """Write and send a message; the turn that comes of it, accepted."""
    await tab.type("#text", text)
    await tab.press("Enter")
    turn = await stages.next()
    await turn.accept()
    return turn


def content_of(turn: AskedTurn) -> Any:
    return turn.requested.request.messages[-1].content


async def test_a_message_is_answered_as_the_words_come(tab: Tab, stages: StagesPeer) -> None:
    turn = await ask(tab, stages, "Good morning")
    assert content_of(turn) == "Good morning"
    await turn.say("Good ")
    await tab.until(f"{SAID}.at(-1) === 'Good '")
    await turn.say("morning 🌅")
    await turn.finish()
    await tab.until(IDLE)
    assert await tab.run(SAID) == ["Good morning", "Good morning 🌅"]
    assert await tab.run("document.querySelector('article:last-child li').textContent") == "42 tokens"


async def test_what_the_engine_reports_is_shown(tab: Tab, stages: StagesPeer) -> None:
    turn = await ask(tab, stages, "What time is it?")
    await turn.use_tool("clock", "running")
    await turn.use_tool("clock", "done")
    await turn.say("Noon.")
    await turn.finish()
    await tab.until(IDLE)
    report = await tab.run("[...document.querySelectorAll('dd')].map((each) => each.textContent)")
    assert set(report) == {turn.requested.turn_id, turn.session_id, "default"}
    notes = await tab.run("[...document.querySelectorAll('article:last-child li')].map((each) => each.textContent)")
    assert notes == ["tool clock: running", "tool clock: done", "42 tokens"]


async def test_nothing_of_a_reply_becomes_markup(tab: Tab, stages: StagesPeer) -> None:
    mischief = "<img src=x onerror='document.body.innerHTML=1'><script>alert(1)</script>"
    turn = await ask(tab, stages, mischief)
    await turn.say(mischief)
    await turn.finish()
    await tab.until(IDLE)
    assert await tab.run(SAID) == [mischief, mischief]
    assert await tab.run("document.querySelectorAll('article img, article script').length") == 0


async def test_a_stop_is_the_engine_s_to_carry_out_and_its_words_stay(
    tab: Tab, stages: StagesPeer, shelf: Shelf
) -> None:
    turn = await ask(tab, stages, "Tell me a long story")
    await turn.say("Once upon ")
    await tab.until(f"{SAID}.at(-1) === 'Once upon '")
    await tab.click("#stop")
    assert await shelf.stops.get() == turn.requested.turn_id
    await turn.say("a time")
    await turn.finish(stopped=True)
    await tab.until(IDLE)
    assert await tab.run("document.querySelector('#status').textContent") == "Stopped."
    assert (await tab.run(SAID))[-1] == "Once upon a time"
    assert "stopped" in await tab.run("document.querySelector('article:last-child ul').textContent")


async def test_a_stop_before_the_turn_is_known_is_said_as_soon_as_it_is(
    tab: Tab, stages: StagesPeer, shelf: Shelf
) -> None:
    await tab.type("#text", "Tell me")
    await tab.press("Enter")
    turn = await stages.next()
    await tab.click("#stop")
    assert shelf.stops.empty()
    await turn.accept()
    await turn.say("Once")
    async with asyncio.timeout(10):
        assert await shelf.stops.get() == turn.requested.turn_id
    await turn.finish(stopped=True)
    await tab.until(IDLE)


async def test_a_reply_goes_on_after_a_reload(tab: Tab, stages: StagesPeer, shelf: Shelf) -> None:
    turn = await ask(tab, stages, "Go on")
    turn_id = turn.requested.turn_id
    shelf.replies[turn_id] = "I will"
    shelf.put("user", "Go on", turn_id)
    shelf.put("assistant", "I will", turn_id)
    await turn.say("I will")
    await tab.until(f"{SAID}.at(-1) === 'I will'")
    await tab.reload()
    await tab.until(f"{SAID}.length === 2 && document.body.dataset.state === 'busy'")
    assert await tab.run(SAID) == ["Go on", "I will"]
    await shelf.asked_for_reply.wait()
    await turn.listened()
    await turn.say(" go on.")
    await tab.until(f"{SAID}.at(-1) === 'I will go on.'")
    await turn.finish()
    await tab.until(IDLE)
    assert await tab.run(SAID) == ["Go on", "I will go on."]


async def test_a_session_goes_on_after_a_reload_and_ends_with_a_new_one(
    tab: Tab, stages: StagesPeer, shelf: Shelf
) -> None:
    first = await ask(tab, stages, "I am Ann")
    await first.finish()
    await tab.until(IDLE)
    shelf.put("user", "I am Ann")
    shelf.put("assistant", "Hello Ann")
    await tab.reload()
    await tab.until(f"{SAID}.length === 2")
    second = await ask(tab, stages, "Who am I?")
    await second.finish()
    await tab.until(IDLE)
    assert second.session_id == first.session_id
    await tab.click("#fresh")
    await tab.until(f"{SAID}.length === 0")
    third = await ask(tab, stages, "Who am I?")
    await third.finish()
    await tab.until(IDLE)
    assert third.session_id != first.session_id


async def test_another_personality_takes_over_the_session(tab: Tab, stages: StagesPeer, shelf: Shelf) -> None:
    turn = await ask(tab, stages, "Hello")
    await turn.finish()
    await tab.until(IDLE)
    await tab.run("const s = document.querySelector('select'); s.value = 'tutor'; s.dispatchEvent(new Event('change'))")
    await (await ask(tab, stages, "Teach me")).finish()
    await tab.until(IDLE)
    assert shelf.sessions[turn.session_id].personality_id == "tutor"


async def test_a_refusal_is_told_with_its_code(tab: Tab, stages: StagesPeer) -> None:
    await tab.type("#text", "Hello")
    await tab.press("Enter")
    await (await stages.next()).refuse(SessionBusy())
    told = await tab.until("document.querySelector('[role=alert]')?.textContent")
    assert "busy" in told
    assert "RESOURCE_SESSION_BUSY" in told
    tab.errors = [error for error in tab.errors if "409" not in error]


async def test_a_reply_that_breaks_off_says_so_and_keeps_its_words(tab: Tab, stages: StagesPeer) -> None:
    turn = await ask(tab, stages, "Hello")
    await turn.say("Hel")
    await turn.fail(EngineFailed())
    assert "ENGINE_FAILED" in await tab.until("document.querySelector('[role=alert]')?.textContent")
    assert (await tab.run(SAID))[-1] == "Hel"
    await tab.until(IDLE)


async def test_a_wrong_key_is_told_and_the_right_one_then_works(tab: Tab) -> None:
    change = "const k = document.querySelector('#key'); k.value = {}; k.dispatchEvent(new Event('change'))"
    await tab.run(change.format("'sk-wrong'"))
    assert "AUTH_INVALID" in await tab.until("document.querySelector('[role=alert]')?.textContent")
    await tab.run("document.querySelector('option').remove()")
    await tab.run(f"{{ {change.format(repr(page.DEVELOPMENT_KEY))} }}")
    await tab.until("document.querySelectorAll('option').length === 2")
    tab.errors = [error for error in tab.errors if "401" not in error]


async def test_the_page_fits_a_telephone(tab: Tab) -> None:
    await tab.send("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert await tab.run("document.querySelector('#send').getBoundingClientRect().bottom <= innerHeight")


async def test_every_control_has_a_name_for_who_cannot_see_it(tab: Tab) -> None:
    nodes = (await tab.send("Accessibility.getFullAXTree"))["nodes"]
    controls = [node for node in nodes if node.get("role", {}).get("value") in ("textbox", "button", "combobox", "log")]
    assert len(controls) == 7
    assert all(node["name"]["value"] for node in controls)


async def test_the_page_runs_under_a_policy_that_lets_nothing_else_in(development: Running) -> None:
    _, headers, html = await development.call("GET", "/", headers={})
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=\"(?!data:,)", html)
    assert f'data-development-key="{page.DEVELOPMENT_KEY}"' in html


async def test_the_development_key_is_offered_in_development_only(nats: EmbeddedNats, settings_folder: Path) -> None:
    async with running(nats.url, settings_folder, COZY_API__PAGE_ENABLED="true") as gateway:
        _, _, html = await gateway.call("GET", "/", headers={})
        assert page.DEVELOPMENT_KEY not in html
        assert 'data-development-key=""' in html

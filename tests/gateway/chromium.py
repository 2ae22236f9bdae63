"""A real browser without a window, driven through its DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip
UNTIL = """
new Promise((resolve) => {
  const look = () => {
    const found = PREDICATE;
    if (found) { observer.disconnect(); resolve(found); }
  };
  const observer = new MutationObserver(look);
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
})
"""


def found() -> str | None:
    """The browser of this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of a browser. `errors` are what it complained of: exceptions, console errors, broken policies."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._count = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self._hearing = asyncio.create_task(self._hear())

    async def send(self, method: str, **params: Any) -> Any:
        """The result of a DevTools method. Raises RuntimeError where the browser refuses it."""
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        async with asyncio.timeout(20):
            return await answer

    async def go(self, url: str) -> None:
        """Open a URL and wait until it has loaded."""
        await self._and_loaded("Page.navigate", url=url)

    async def reload(self) -> None:
        """As the button does."""
        await self._and_loaded("Page.reload")

    async def run(self, script: str) -> Any:
        """The value of a script, waited for where it is a promise."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    async def until(self, predicate: str) -> Any:
        """Wait until a JavaScript expression is true of the page, looking at each change of it."""
        try:
            return await self.run(UNTIL.replace("PREDICATE", predicate))
        except TimeoutError:
            seen = await self.run("document.body.innerText")
            raise AssertionError(f"never came true: {predicate}\nThe page says: {seen}") from None

    async def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and write, as a keyboard does."""
        await self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press a key and let it go."""
        code = {"Enter": 13, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if (kind, key) == ("keyDown", "Enter") else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        box = await self.run(
            f"(({{ x, y, width, height }}) => ({{ x: x + width / 2, y: y + height / 2 }}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    async def close(self) -> None:
        """Stop listening to the browser."""
        self._hearing.cancel()
        await self._socket.close()

    async def _and_loaded(self, method: str, **params: Any) -> None:
        self._loaded.clear()
        await self.send(method, **params)
        async with asyncio.timeout(20):
            await self._loaded.wait()

    async def _hear(self) -> None:
        async for message in self._socket:
            said = message.json()
            if (answer := self._answers.pop(said.get("id"), None)) is not None:
                if answer.done():
                    continue
                if "error" in said:
                    answer.set_exception(RuntimeError(said["error"]["message"]))
                else:
                    answer.set_result(said["result"])
            elif said.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(said["params"]["entry"]["text"])


class Browser:
    """A browser process with a profile of its own."""

    def __init__(self, binary: str, profile: Path) -> None:
        as_root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        command = [binary, *FLAGS, *as_root, f"--user-data-dir={profile}", "about:blank"]
        self._port_file = profile / "DevToolsActivePort"
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._http = aiohttp.ClientSession()

    async def tab(self) -> Tab:
        """A fresh page, in a context that shares nothing with the others."""
        async with self._http.put(f"http://127.0.0.1:{await self._port()}/json/new?about:blank") as response:
            url = json.loads(await response.text())["webSocketDebuggerUrl"]
        tab = Tab(await self._http.ws_connect(url, max_msg_size=0))
        for domain in ("Page", "Runtime", "Log"):
            await tab.send(f"{domain}.enable")
        return tab

    async def close(self) -> None:
        """End the browser."""
        await self._http.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()

    async def _port(self) -> int:
        """The port the browser chose, which it writes down once it is ready."""
        async with asyncio.timeout(30):
            while not (self._port_file.exists() and "\n" in self._port_file.read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return int(self._port_file.read_text().split("\n")[0])

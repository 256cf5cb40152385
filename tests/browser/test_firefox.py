"""Firefox's stack on data channels to the server, driven over WebDriver BiDi; only where Firefox is installed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.browser.test_data_channels import OPEN
from tests.serving import WATCHDOG_S, Server

pytestmark = pytest.mark.browser

NAMES = ("firefox-esr", "firefox")

PREFERENCES = """
user_pref("media.peerconnection.ice.loopback", true);
user_pref("permissions.default.camera", 1);
"""
"""What lets a page find peers on this machine."""

SESSION = """
(async () => {
  await (%s)();
  const until = async (isSo) => { while (!isSo()) await new Promise((done) => setTimeout(done, 10)); };
  const say = (command) => reliable.send(JSON.stringify(command));
  say({ type: "subscribe", channel: "fox", since: "earliest", ref: 2 });
  await until(() => state.had.length === 100);
  for (let number = 100; number < 150; number++) say({ type: "publish", channel: "fox", data: number, ref: number });
  await until(() => state.had.length === 150);
  unreliable.send(JSON.stringify({ type: "publish", channel: "fox", data: "own", ephemeral: true }));
  await until(() => state.lost.length === 1);
  say({ type: "subscribe", channel: "large:fox", since: "earliest", ref: 3 });
  await until(() => state.had.length === 151);
  await fetch(state.location, { method: "DELETE" });
  await until(() => state.closed);
  const long = state.had.pop().length;
  return JSON.stringify({ had: state.had, lost: state.lost, long, last: state.pushes.at(-1).type });
})()
"""
"""Reads, publishes, over both channels, in parts where it is long, and ends."""


@pytest.fixture
def program() -> str:
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Firefox here: install it with `sudo apt-get install firefox-esr`")
    return path


@asynccontextmanager
async def _firefox(program: str, profile: Path) -> AsyncIterator[ClientConnection]:
    """Run Firefox, and give the connection that drives it."""
    (profile / "user.js").write_text(PREFERENCES)
    process = await asyncio.create_subprocess_exec(
        program,
        *("--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": str(profile)},
    )
    assert process.stderr is not None
    draining: asyncio.Task[bytes] | None = None
    try:
        address = None
        while address is None:
            line = await process.stderr.readline()
            assert line, "Firefox ended before it listened"
            address = re.search(rb"ws://\S+", line)
        draining = asyncio.create_task(process.stderr.read())
        async with connect(address[0].decode().rstrip("/") + "/session", max_size=None) as wire:
            yield wire
    finally:
        process.terminate()
        await process.wait()
        if draining is not None:
            await draining


async def _command(wire: ClientConnection, number: int, method: str, **params: Any) -> dict[str, Any]:
    """Send a command; return its result."""
    await wire.send(json.dumps({"id": number, "method": method, "params": params}))
    async for text in wire:
        answer: dict[str, Any] = json.loads(text)
        if answer.get("id") == number:
            assert answer["type"] == "success", answer
            result: dict[str, Any] = answer["result"]
            return result
    raise AssertionError("Firefox ended")


def test_firefox_reads_publishes_and_ends(program: str, tmp_path: Path) -> None:
    server = Server(rtc={"rtc": True}, namespaces=[{"name": "large", "message_max_bytes": 1_000_000}])
    for number in range(100):
        server.publish("fox", number)
    server.publish("large:fox", "x" * 300_000)

    async def test() -> dict[str, Any]:
        async with asyncio.timeout(WATCHDOG_S), _firefox(program, tmp_path) as wire:
            await _command(wire, 1, "session.new", capabilities={})
            context = (await _command(wire, 2, "browsingContext.getTree"))["contexts"][0]["context"]
            url = f"http://127.0.0.1:{server.port}/"
            await _command(wire, 3, "browsingContext.navigate", context=context, url=url, wait="complete")
            script, target = SESSION % OPEN, {"context": context}
            done = await _command(wire, 4, "script.evaluate", expression=script, target=target, awaitPromise=True)
            assert done["type"] == "success", done
            result: dict[str, Any] = json.loads(done["result"]["value"])
            return result

    try:
        result = asyncio.run(test())
    finally:
        server.close()
    assert result == {"had": list(range(150)), "lost": ["own"], "long": 300_000, "last": "closing"}

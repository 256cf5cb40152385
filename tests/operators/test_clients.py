"""What becomes of clients that an operator takes out of a channel: that reading ends for good, and all else goes on."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
from typing import Any

import pytest

from tellwire.client import connect
from tellwire.client.messages import TransportName
from tellwire.testing.harness import on_loop
from tests.cli.commands import Running
from tests.serving import ROOT, WATCHDOG_S, Server
from tests.wires import Http


def take_out(server: Server, channel: str, **whom: str) -> dict[str, Any]:
    with Http(server) as http:
        done: dict[str, Any] = http.post("/v1/admin/unsubscribe", {"channel": channel, **whom}).json()
        return done


@pytest.mark.parametrize("wire", ["websocket", "sse"])
@on_loop
async def test_python_client_that_is_taken_out_reads_on_elsewhere(
    server: Server, channel: str, wire: TransportName
) -> None:
    other = f"{channel}-other"
    url = f"http://127.0.0.1:{server.port}"
    async with asyncio.timeout(WATCHDOG_S), connect(url, transports=[wire]) as client:
        ended, kept = client.subscribe(channel), client.subscribe(other)
        await ended.ready()
        await kept.ready()
        name = await asyncio.to_thread(client_reading, server, channel)
        done = await asyncio.to_thread(take_out, server, channel, client=name)
        assert done == {"readings": 1, "unanswered": []}
        with pytest.raises(Exception, match=f"the server ended the reading of {channel}") as raised:
            await anext(ended)
        assert getattr(raised.value, "code", None) == "forbidden"
        await asyncio.to_thread(server.publish, other, "still here")
        assert (await anext(kept)).data == "still here"


def client_reading(server: Server, channel: str) -> str:
    with Http(server) as http:
        while True:
            found = http.get(f"/v1/admin/connections?channel={channel}").json()["connections"]
            if found:
                client: str = found[0]["client"]
                return client


SCRIPT = """
import { Tellwire } from %s;
const [url, ended, kept] = process.argv.slice(1);
const client = new Tellwire(url, { transports: ["sse"] });
const first = client.subscribe(ended), second = client.subscribe(kept);
await Promise.all([first.ready, second.ready]);
console.log("ready");
try { for await (const message of first) console.log("message", message.data); }
catch (error) { console.log(error.code, error.message); }
for await (const message of second) { console.log(message.data); break; }
client.close();
"""


def test_javascript_client_that_is_taken_out_reads_on_elsewhere(server: Server, channel: str) -> None:
    script = SCRIPT % json.dumps(str(ROOT / "clients" / "js" / "src" / "tellwire.js"))
    arguments = [f"http://127.0.0.1:{server.port}", channel, f"{channel}-other"]
    process = subprocess.Popen(
        ["node", "--input-type=module", "-e", script, "--", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            assert take_out(server, channel, client=client_reading(server, channel))["readings"] == 1
            assert process.stdout.readline() == f"forbidden the server ended the reading of {channel}\n"
            server.publish(f"{channel}-other", "still here")
            assert process.stdout.readline() == "still here\n"
            assert process.wait(WATCHDOG_S) == 0
        finally:
            process.kill()


def test_command_that_is_taken_out_says_so_and_ends(server: Server, channel: str) -> None:
    other = f"{channel}-{secrets.token_hex(2)}"
    reading = Running("sub", channel, other, "--url", f"http://127.0.0.1:{server.port}")
    try:
        name = client_reading(server, channel)
        assert client_reading(server, other) == name
        take_out(server, channel, client=name)
        assert reading.err.readline() == f"the server ended the reading of {channel} (forbidden)\n"
        server.publish(other, 1)
        assert reading.lines(1) == ["1"]
        take_out(server, other, client=name)
        assert reading.err.readline() == f"the server ended the reading of {other} (forbidden)\n"
        assert reading.process.wait(WATCHDOG_S) == 1
    finally:
        reading.close()

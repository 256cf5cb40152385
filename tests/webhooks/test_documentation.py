"""docs/hooks.md: its backend in JavaScript is run and asked, and its tables name what there is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tellwire.auth import Identity
from tellwire.errors import Forbidden, NotFound, Unauthorized
from tellwire.hooks import Client, ConnectRequest, Disconnected, Hooks, Publishing
from tellwire.testing.harness import on_loop
from tellwire.webhooks.backend import REFUSALS
from tellwire.webhooks.endpoint import sign
from tellwire.webhooks.settings import HOOKS
from tests.serving import ROOT, WATCHDOG_S
from tests.webhooks.backend import SECRET, Time, asking

PAGE = (ROOT / "docs" / "hooks.md").read_text()
ANN = Client("c1", Identity(user="ann"), "websocket")


def now() -> Time:
    """Return the time that it is: the backend compares it with its own."""
    present = Time()
    present.now = time.time()
    return present


@asynccontextmanager
async def backend_of_the_page() -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """Run the page's program; give its URL and what it writes."""
    found = re.search(r"^```js\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    node = shutil.which("node")
    assert node is not None, "node is needed to run the example"
    process = await asyncio.create_subprocess_exec(
        node,
        "--input-type=module",
        "--eval",
        found[1],
        env={**os.environ, "TELLWIRE_HOOK_SECRET": SECRET, "PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}", process.stdout
    finally:
        process.kill()
        await process.wait()


@on_loop
async def test_the_backend_answers_every_hook() -> None:
    async with backend_of_the_page() as (url, written), asking(url, now()) as hooks:
        identity = await hooks.ask_connect(ConnectRequest(token="ann's"))
        assert identity is not None
        assert identity.user == "ann"
        assert identity.grants.may("publish", "room:1")
        with pytest.raises(Unauthorized, match="log in first"):
            await hooks.ask_connect(ConnectRequest(token="bob's"))

        await hooks.ask_subscribe(ANN, "inbox:ann")
        with pytest.raises(Forbidden, match="not your inbox"):
            await hooks.ask_subscribe(ANN, "inbox:bob")

        message = Publishing("room:1", {"text": "darn, darn", "to": "all"})
        altered = await hooks.ask_publish(ANN, message)
        assert altered == replace(message, data={"text": "****, ****", "to": "all"})

        assert await hooks.ask_call(ANN, "add", [1, 2]) == 3
        with pytest.raises(NotFound, match="no divide"):
            await hooks.ask_call(ANN, "divide", [1, 2])

        await hooks.tell_disconnect(Disconnected("c1", "ann", None, "sse", None, "went away", 1.5))
        assert await written.readline() == b"ann has gone: went away\n"


@on_loop
async def test_the_backend_refuses_what_is_not_signed() -> None:
    body = b'{"hook":"call","method":"add","data":[1,2]}'
    secret, stamp = SECRET.encode(), int(now()())
    good = f"t={stamp},v1={sign(secret, stamp, body)}"
    signatures: list[tuple[str | None, int]] = [
        (good, 200),
        (None, 400),
        ("", 400),
        ("t=,v1=", 400),
        (f"t={stamp}", 400),
        (f"t={stamp},v1=", 400),
        (f"t={stamp},v1={'0' * 64}", 400),
        (f"t={stamp},v1={sign(b'another secret of many bytes', stamp, body)}", 400),
        (f"t={stamp},v1={sign(secret, stamp, body + b' ')}", 400),
        (f"t={stamp + 1},v1={sign(secret, stamp, body)}", 400),
        (f"t={stamp - 400},v1={sign(secret, stamp - 400, body)}", 400),
        (f"t={stamp + 400},v1={sign(secret, stamp + 400, body)}", 400),
        (f"t={stamp - 200},v1={sign(secret, stamp - 200, body)}", 200),
    ]
    async with backend_of_the_page() as (url, _), httpx.AsyncClient(trust_env=False, timeout=WATCHDOG_S) as client:
        for signature, status in signatures:
            headers = {} if signature is None else {"tellwire-signature": signature}
            answer = await client.post(url, content=body, headers=headers)
            assert answer.status_code == status, signature


@on_loop
async def test_the_handlers_in_python_do_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    async def is_member(user: str | None) -> bool:
        return user == "ann"

    found = re.search(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    names: dict[str, Any] = {"is_member": is_member}
    exec(found[1], names)
    hooks = Hooks(subscribe=names["subscribe"], publish=names["publish"], disconnect=names["disconnect"])

    await hooks.ask_subscribe(ANN, "vip:1")
    with pytest.raises(Forbidden, match="members only"):
        await hooks.ask_subscribe(Client("c2", Identity(), "sse"), "vip:1")
    assert await hooks.ask_publish(ANN, Publishing("room:1", {"text": "well"})) is None
    altered = await hooks.ask_publish(ANN, Publishing("room:1", {"text": "darn"}))
    assert altered is not None
    assert altered.data == {"text": "****"}
    await hooks.tell_disconnect(Disconnected("c1", "ann", None, "sse", None, "went away", 1.5))
    assert capsys.readouterr().out == "ann has gone: went away\n"


def test_the_tables_name_every_hook_and_every_code() -> None:
    for hook in HOOKS:
        assert PAGE.count(f"\n| `{hook}` |") == 2, hook
        assert f"`hook_{hook}_url`" in PAGE
    for code in REFUSALS:
        assert f"`{code}`" in PAGE, code

"""The JavaScript client as a server hands it out: from a checkout, under a prefix, and from a wheel."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tellwire import Tellwire
from tellwire.server.pages import CLIENT
from tests.serving import ROOT, WATCHDOG_S, Server

MODULES = sorted(path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*.js"))


def get(server: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, timeout=WATCHDOG_S)


@pytest.mark.parametrize("kind", ["direct", "hypercorn"])
def test_every_module_is_served_for_pages_of_any_origin(foreign_servers: Callable[[str], Server], kind: str) -> None:
    assert "tellwire.js" in MODULES
    server = foreign_servers(kind)
    for name in MODULES:
        answer = get(server, f"/client/{name}", Origin="https://elsewhere.example")
        assert answer.status_code == 200
        assert answer.content == (CLIENT / name).read_bytes()
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_modules_import_is_there_too() -> None:
    for name in MODULES:
        for target in re.findall(r'^(?:import|export) .*from "([^"]+)";$', (CLIENT / name).read_text(), re.MULTILINE):
            assert (CLIENT / name).parent.joinpath(target).is_file(), f"{name} imports {target}"


def test_browser_that_has_it_gets_no_second_copy(server: Server) -> None:
    first = get(server, "/client/tellwire.js")
    assert first.headers["cache-control"] == "no-cache"
    again = get(server, "/client/tellwire.js", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "path", ["/client", "/client/", "/client/none.js", "/client/../package.json", "/client/%2e%2e/package.json"]
)
def test_nothing_else_is_there(server: Server, path: str) -> None:
    # httpx would tidy the path up; what goes over the wire has to be this one.
    answer = httpx.get(
        httpx.URL(f"http://127.0.0.1:{server.port}").copy_with(raw_path=path.encode()), timeout=WATCHDOG_S
    )
    assert answer.status_code in (307, 404)
    assert b"devDependencies" not in answer.content


def test_it_is_only_to_be_read(server: Server) -> None:
    answer = httpx.post(f"http://127.0.0.1:{server.port}/client/tellwire.js", content=b"1", timeout=WATCHDOG_S)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


async def _get_mounted(path: str) -> httpx.Response:
    tellwire = Tellwire(open=True)
    app = Starlette(routes=[Mount("/realtime", tellwire.asgi)])
    async with tellwire.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        return await client.get(f"http://127.0.0.1{path}")


def test_application_has_it_under_its_prefix() -> None:
    answer = asyncio.run(_get_mounted("/realtime/client/transports/sse.js"))
    assert answer.content == (CLIENT / "transports" / "sse.js").read_bytes()
    assert asyncio.run(_get_mounted("/client/tellwire.js")).status_code == 404


def test_wheel_has_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0 and "No matching distribution found for hatchling" in done.stderr:
        assert os.environ.get("CI") != "true", done.stderr
        pytest.skip("the build backend is not to be had here")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    # Started from there, it serves its own copy.
    script = "from tellwire.server.pages import CLIENT; print(CLIENT)"
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    served = Path(said.stdout.strip())
    assert served == tmp_path / "site" / "tellwire" / "client_js"
    assert sorted(path.relative_to(served).as_posix() for path in served.rglob("*.js")) == MODULES
    assert (served / "tellwire.js").read_bytes() == (CLIENT / "tellwire.js").read_bytes()

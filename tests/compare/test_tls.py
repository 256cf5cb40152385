"""Servers behind TLS, with an authority of their own, and behind a proxy at a path."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tellwire.compare.comparison import Comparison
from tellwire.compare.failures import Unmeasured
from tellwire.compare.options import Options
from tellwire.compare.site import site_of
from tests.compare.test_comparison import QUICK
from tests.nginx import DOCUMENTED, Through, through
from tests.serving import Certificate, Server, make_certificate

__all__ = ["through"]


def test_tls_is_measured_with_an_authority_of_its_own(start_server: Callable[..., Server], tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="tellwire[grpc] is not installed")
    # Its gRPC is counted through a port of 127.0.0.1, for which this certificate is not.
    certificate = make_certificate(tmp_path, "localhost")
    server = start_server(server={**certificate.settings, "grpc_port": 0})
    given: dict[str, Any] = {"url": f"https://localhost:{server.port}", "grpc": f"grpcs://localhost:{server.grpc_port}"}
    quick = {**QUICK, "readers": (1,), "payload_bytes": (16,), "idle": 0}
    options = Options(transports=("sse", "websocket", "grpc"), **quick)
    comparison = Comparison(options, tls=certificate.client_context(), **given)
    asyncio.run(comparison.run())
    found = comparison.found
    assert (found["ended"], found["says"]) == ("complete", "")
    assert [(wire["status"], wire["says"]) for wire in found["transports"].values()] == [("measured", "")] * 3
    assert found["fallback"]["transport"] == "websocket"

    options = Options(transports=("grpc",), **quick)
    comparison = Comparison(options, tls=_trusting_nobody(), **given)
    asyncio.run(comparison.run())
    says = comparison.found["transports"]["grpc"]["says"]
    assert says.startswith("its certificate is not accepted; --ca-file gives the authority")


@pytest.mark.parametrize(
    ("names", "days", "is_trusted", "says"),
    [
        (("localhost",), 30, False, "nobody who is trusted here has signed it; --ca-file gives the authority"),
        (("localhost",), -1, True, "certificate has expired"),
        (("push.example.com",), 30, True, "hostname mismatch, certificate is not valid for 'localhost'"),
    ],
)
def test_certificate_that_is_not_accepted_is_said(
    tmp_path: Path, names: tuple[str, ...], days: int, is_trusted: bool, says: str
) -> None:
    certificate = make_certificate(tmp_path, *names, days=days)
    accepted = certificate.client_context() if is_trusted else ssl.create_default_context()
    assert f"the certificate of localhost:PORT is not accepted: {says}" in asyncio.run(_refusal(certificate, accepted))


async def _refusal(certificate: Certificate, accepted: ssl.SSLContext) -> str:
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(certificate.cert, certificate.key)
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=shown)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unmeasured) as caught:
            await site_of(f"https://localhost:{port}", tls=accepted).dial(asyncio.Protocol())
    return caught.value.says.replace(str(port), "PORT")


def test_scheme_that_is_the_wrong_one_is_said(
    server: Server, start_server: Callable[..., Server], certificate: Certificate
) -> None:
    secure = start_server(server=certificate.settings)
    for url, says in (
        (f"https://127.0.0.1:{server.port}", f"127.0.0.1:{server.port} does not speak TLS: it may want http://"),
        (f"http://127.0.0.1:{secure.port}", "broke without an answer: it may want https://"),
    ):
        comparison = Comparison(Options(transports=("sse",), **QUICK), url=url)
        asyncio.run(comparison.run())
        assert comparison.found["ended"] == "lost"
        assert says in comparison.found["says"]


def test_server_behind_a_proxy_at_a_path_is_measured(server: Server, through: Through) -> None:
    nginx = through(server, f"if ($uri !~ ^/push/) {{ return 404; }} rewrite ^/push/(.*)$ /$1 break; {DOCUMENTED}")
    url = f"http://127.0.0.1:{nginx.port}"
    options = Options(transports=("longpoll", "sse", "websocket"), **{**QUICK, "readers": (1,), "idle": 0})
    for where, ended in ((f"{url}/push/", "complete"), (url, "lost")):
        comparison = Comparison(options, url=where)
        asyncio.run(comparison.run())
        found = comparison.found
        assert found["ended"] == ended, found["says"]
        if ended == "complete":
            assert [wire["status"] for wire in found["transports"].values()] == ["measured"] * 3
            assert found["fallback"]["transport"] == "websocket"
            assert found["unknown"][0].startswith("the server's CPU and memory: its process is not known here")
        else:
            assert found["says"].startswith(f"there is no Tellwire at {url}: ")


def _trusting_nobody() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return tls

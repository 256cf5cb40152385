from __future__ import annotations

import ssl

import pytest

from tellwire.auth import Identity
from tellwire.errors import HookFailed
from tellwire.hooks import Client
from tellwire.testing.harness import on_loop
from tests.serving import Certificate
from tests.webhooks.backend import Backend, asking

ANN = Client("c1", Identity(user="ann"), "websocket")


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


@on_loop
async def test_authorities_of_the_system_are_trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    async with Backend(tls=server_context(certificate)) as backend:
        for host in ("localhost", "127.0.0.1"):
            async with asking(f"https://{host}:{backend.port}") as hooks:
                await hooks.ask_subscribe(ANN, "room:1")
        assert len(backend.requests) == 2


@on_loop
async def test_nobody_else_is_told_anything(certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    async with Backend(tls=server_context(certificate)) as backend:
        async with asking(f"https://localhost:{backend.port}", hook_retries=0) as hooks:
            with pytest.raises(HookFailed):
                await hooks.ask_subscribe(ANN, "room:1")
        assert backend.requests == []
    assert "certificate verify failed" in caplog.text.lower()


@on_loop
async def test_a_certificate_for_another_host_is_not_enough(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    async with Backend(host="127.0.0.2", tls=server_context(certificate)) as backend:
        async with asking(f"https://127.0.0.2:{backend.port}", hook_retries=0) as hooks:
            with pytest.raises(HookFailed):
                await hooks.ask_subscribe(ANN, "room:1")
        assert backend.requests == []
    assert "not valid for '127.0.0.2'" in caplog.text

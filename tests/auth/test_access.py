"""Who may come in (spec, section 13)."""

from __future__ import annotations

import pytest

from tellwire.auth import Access, is_loopback
from tellwire.errors import ForbiddenOrigin


def headers(origin: str | None, host: str = "example.org") -> list[tuple[bytes, bytes]]:
    fields = [(b"host", host.encode())]
    return fields if origin is None else [*fields, (b"origin", origin.encode())]


@pytest.mark.parametrize(
    ("access", "origin", "scheme"),
    [
        (Access(), None, "http"),
        (Access(), "http://example.org", "http"),
        (Access(), "http://example.org", "ws"),
        (Access(), "https://EXAMPLE.org", "wss"),
        (Access(origins=["https://page.test"]), "https://page.test", "http"),
        (Access(origins=["*"]), "null", "http"),
    ],
)
def test_origin_may_come_in(access: Access, origin: str | None, scheme: str) -> None:
    assert access.check(headers(origin), scheme) == origin


@pytest.mark.parametrize(
    ("access", "origin", "scheme"),
    [
        (Access(), "http://evil.test", "http"),
        (Access(), "http://example.org.evil.test", "http"),
        (Access(), "http://example.org:81", "http"),
        (Access(), "https://example.org", "http"),
        (Access(), "null", "http"),
        (Access(), "", "http"),
        (Access(origins=["https://page.test"]), "http://page.test", "http"),
    ],
)
def test_other_origins_may_not(access: Access, origin: str, scheme: str) -> None:
    with pytest.raises(ForbiddenOrigin):
        access.check(headers(origin), scheme)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:80", "a.localhost", "127.0.0.1:9", "127.9.9.9", "[::1]", "[::1]:80"]
)
def test_loopback_is_told_by_its_name(host: str) -> None:
    assert is_loopback(host)
    assert Access(loopback_only=True).check(headers(None, host), "http") is None


@pytest.mark.parametrize(
    "host", ["", "example.org", "localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1", "[::", "a:b:c"]
)
def test_names_that_resolve_to_loopback_are_not_taken(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ForbiddenOrigin):
        Access(loopback_only=True).check(headers(None, host), "http")

from __future__ import annotations

from typing import Any

import pytest

from tellwire.webhooks import WebhookSettings
from tests.webhooks.backend import SECRET


def test_without_a_url_nothing_is_needed() -> None:
    assert WebhookSettings().urls() == {}


def test_urls_are_those_given() -> None:
    settings = WebhookSettings(
        hook_publish_url="https://example.org/hooks?key=1", hook_call_url="http://[::1]:8080/", hook_secret=SECRET
    )
    assert settings.urls() == {"publish": "https://example.org/hooks?key=1", "call": "http://[::1]:8080/"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hooks",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "http:///hooks",
        "http://example.org:99999/",
        "http://example.org:0/",
        "http://[::1/",
        "https://CANARY@example.org/",
        "https://user:CANARY@example.org/",
        "https://example.org/#CANARY",
        "https://example.org/a b?CANARY",
        "https://example.org/\r\nx: y",
        "https://bücher.example/",
    ],
)
def test_urls_that_cannot_be_asked_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="hook_publish_url") as raised:
        WebhookSettings(hook_publish_url=url, hook_secret=SECRET)
    assert "CANARY" not in str(raised.value)


@pytest.mark.parametrize("secret", [None, "", "too short"])
def test_urls_need_a_secret(secret: str | None) -> None:
    with pytest.raises(ValueError, match="hooks need a hook_secret of at least 16 bytes") as raised:
        WebhookSettings(hook_call_url="http://127.0.0.1/", hook_secret=secret)
    assert secret is None or secret == "" or secret not in str(raised.value)


def test_the_secret_is_not_shown() -> None:
    given: dict[str, Any] = {"hook_call_url": "http://127.0.0.1/", "hook_secret": SECRET}
    assert SECRET not in repr(WebhookSettings(**given))

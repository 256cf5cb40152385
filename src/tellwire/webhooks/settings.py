"""Which backend is asked, and how long for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

SECRET_MIN_BYTES = 16
"""Shortest hook_secret: 128 bits, if it was drawn at random."""

QUESTIONS = ("connect", "subscribe", "publish", "call")
HOOKS = (*QUESTIONS, "disconnect")


@dataclass(frozen=True)
class WebhookSettings:
    """The backend that is asked over HTTP; hooks without a URL are not asked."""

    hook_connect_url: str | None = None
    """URL that is asked who a client is, when it connects and at each of its HTTP requests."""
    hook_subscribe_url: str | None = None
    """URL that is asked before a client begins to read a channel that its token lets it read."""
    hook_publish_url: str | None = None
    """URL that is asked before a message is let in; it may alter the message."""
    hook_call_url: str | None = None
    """URL that answers what clients call."""
    hook_disconnect_url: str | None = None
    """URL that is told of each connection that ended, at least once."""
    hook_secret: str | None = field(default=None, repr=False)
    """Secret that signs the requests (HMAC-SHA256), at least 16 bytes; needed where a URL is given."""
    hook_timeout_s: float = 5.0
    """Seconds that a hook may take, waiting for a connection and retries included."""
    hook_retries: Annotated[int, msgspec.Meta(ge=0)] = 2
    """How often a question is asked again, within hook_timeout_s, when the backend gave no answer."""
    hook_concurrency: int = 64
    """Requests to one URL at a time; eight times as many may wait, and one client may have an eighth of both."""
    hook_cache_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Seconds for which the answer of connect holds for the same credentials; 0 asks each time."""
    hook_forward_headers: tuple[str, ...] = ("authorization", "cookie")
    """Header fields of the client that connect is told; they are its credentials, together with the token."""
    hook_forward_query: tuple[str, ...] = ()
    """Query parameters of the client that connect is told; they are credentials too."""
    hook_unavailable: Literal["deny", "allow"] = "deny"
    """What becomes of connect, subscribe and publish while the backend gives no answer; a call always fails."""

    def __post_init__(self) -> None:
        for hook, url in self.urls().items():
            if (wrong := _fault(url)) is not None:
                raise ValueError(f"hook_{hook}_url {wrong}")
        if self.urls() and len((self.hook_secret or "").encode()) < SECRET_MIN_BYTES:
            raise ValueError(
                f"hooks need a hook_secret of at least {SECRET_MIN_BYTES} bytes, by which the backend knows who asks; "
                "`openssl rand -hex 32` makes one"
            )

    def urls(self) -> dict[str, str]:
        """Return the URL of each hook that has one."""
        given = {hook: getattr(self, f"hook_{hook}_url") for hook in HOOKS}
        return {hook: url for hook, url in given.items() if url is not None}


def _fault(url: str) -> str | None:
    """Say what is wrong with a URL, without what in it may be secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        return f"is not a URL: {exc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "has to begin with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "may not hold a name or password; the signature is what the backend can trust"
    if parts.fragment or not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        return "holds a fragment, or characters that have to be percent-encoded"
    return None

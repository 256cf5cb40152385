"""The HTTP side described in OpenAPI 3.1, for generators of clients and for tools that try out servers.

Schemas are made of the Structs that the server reads and writes, and errors of the one table of codes, so that the
description cannot say anything else than what is done.
"""

from __future__ import annotations

from typing import Any

from tellwire import __version__
from tellwire.limits import Limits
from tellwire.openapi.paths import make_paths
from tellwire.openapi.schemas import make_problems, make_schemas

__all__ = ["document"]

_TAGS = {
    "reading": "Messages after a cursor, once or as they come.",
    "publishing": "Messages into channels.",
    "presence": "Who is here, direct messages, calls.",
    "admin": "For operators.",
    "health": "For whoever runs the server.",
}


def document(
    *,
    prefix: str = "",
    limits: Limits | None = None,
    jsonp: bool = False,
    rtc: bool = False,
    cookie: str = "tellwire_token",
) -> dict[str, Any]:
    """Return the description of a server.

    Args:
        prefix: Where the application is mounted.
        limits: Bounds that are settings.
        jsonp: Whether polls answer scripts.
        rtc: Whether data channels are taken.
        cookie: Name of the cookie that may hold a token.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tellwire",
            "version": __version__,
            "summary": "One channel, over any wire.",
            "description": "A channel is a log and a reader is a cursor: any reader goes on where it stood, on any "
            "transport and any node. Errors are problem+json (RFC 9457) with a `code`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": prefix or "/"}],
        "security": [{}, {"bearer": []}, {"query": []}, {"cookie": []}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.items()],
        "paths": make_paths(limits or Limits(), jsonp=jsonp, rtc=rtc),
        "components": {
            "schemas": make_schemas(),
            "responses": make_problems(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": cookie},
            },
        },
    }

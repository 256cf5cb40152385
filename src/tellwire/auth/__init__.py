"""Who may: the origins of pages, the tokens that say who somebody is, and what that lets them do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tellwire.auth.access import ANY, Access, Headers, is_loopback
from tellwire.auth.credentials import find_token, redact
from tellwire.auth.grants import Grants, InvalidGrants, Operation
from tellwire.auth.identity import Identity
from tellwire.auth.settings import AuthSettings

if TYPE_CHECKING:
    from tellwire.auth.keys import UnusableKey
    from tellwire.auth.tokens import Verifier

__all__ = [
    "ANY",
    "Access",
    "AuthSettings",
    "Grants",
    "Headers",
    "Identity",
    "InvalidGrants",
    "Operation",
    "UnusableKey",
    "Verifier",
    "find_token",
    "is_loopback",
    "redact",
]


def __getattr__(name: str) -> Any:
    # What checks signatures takes longer to load than all the rest of a node, and an open server never needs it.
    if name == "Verifier":
        from tellwire.auth.tokens import Verifier

        return Verifier
    if name == "UnusableKey":
        from tellwire.auth.keys import UnusableKey

        return UnusableKey
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

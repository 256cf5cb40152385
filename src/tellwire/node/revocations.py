"""Whose tokens are no longer good, though their signature is."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from tellwire.auth import Identity
from tellwire.errors import Revoked


class _Revoked(NamedTuple):
    at: float
    """When it was said, in seconds since 1970."""
    heard: float
    """When this node took notice, by its monotonic clock."""


class Revocations:
    """Users and token ids that were revoked, as the log of control messages says (see Control).

    A user's tokens are refused if they were issued before the user was revoked, or do not say when.
    """

    def __init__(self) -> None:
        self._users: dict[str, _Revoked] = {}
        self._token_ids: dict[str, _Revoked] = {}

    def revoke_user(self, user: str, at: float) -> None:
        """Refuse a user's tokens from before `at`, in seconds since 1970."""
        before = self._users.get(user)
        self._users[user] = _Revoked(at if before is None else max(at, before.at), time.monotonic())

    def revoke_token(self, token_id: str, at: float) -> None:
        """Refuse a token."""
        self._token_ids[token_id] = _Revoked(at, time.monotonic())

    def check(self, identity: Identity) -> None:
        """Raise Revoked for an identity whose user or token is."""
        if identity.token_id is not None and identity.token_id in self._token_ids:
            raise Revoked("this token was revoked")
        revoked = self._users.get(identity.user) if identity.user is not None else None
        # Tokens say when they were issued in whole seconds; of the same second none is trusted.
        if revoked is not None and (identity.issued_at is None or math.floor(identity.issued_at) <= revoked.at):
            raise Revoked("this user's tokens were revoked; get a new one")

    def concern(self, identity: Identity, known: float) -> bool:
        """Tell whether somebody who was found out at `known`, by the monotonic clock, has been revoked since."""
        revoked = self._token_ids.get(identity.token_id) if identity.token_id is not None else None
        if revoked is not None and revoked.heard >= known:
            return True
        revoked = self._users.get(identity.user) if identity.user is not None else None
        if revoked is None or revoked.heard < known:
            return False
        return identity.issued_at is None or identity.issued_at <= revoked.at

    def forget(self, before: float) -> None:
        """Forget what was revoked before a time, of which no token can be any more."""
        for all_ in (self._users, self._token_ids):
            for name in [name for name, revoked in all_.items() if revoked.at < before]:
                del all_[name]

    def __len__(self) -> int:
        return len(self._users) + len(self._token_ids)

"""Whose tokens are no longer good, though their signature is."""

from __future__ import annotations

import math

from tellwire.auth import Identity
from tellwire.errors import Revoked


class Revocations:
    """Users and token ids that were revoked, as the log of control messages says (see Control).

    A user's tokens are refused if they were issued before the user was revoked, or do not say when.
    """

    def __init__(self) -> None:
        self._users: dict[str, float] = {}
        self._token_ids: dict[str, float] = {}

    def revoke_user(self, user: str, at: float) -> None:
        """Refuse a user's tokens from before `at`, in seconds since 1970."""
        self._users[user] = max(at, self._users.get(user, 0.0))

    def revoke_token(self, token_id: str, at: float) -> None:
        """Refuse a token."""
        self._token_ids[token_id] = at

    def check(self, identity: Identity) -> None:
        """Raise Revoked for an identity whose user or token is."""
        if identity.token_id is not None and identity.token_id in self._token_ids:
            raise Revoked("this token was revoked")
        at = self._users.get(identity.user) if identity.user is not None else None
        # Tokens say when they were issued in whole seconds; of the same second none is trusted.
        if at is not None and (identity.issued_at is None or math.floor(identity.issued_at) <= at):
            raise Revoked("this user's tokens were revoked; get a new one")

    def forget(self, before: float) -> None:
        """Forget what was revoked before a time, of which no token can be any more."""
        for revoked in (self._users, self._token_ids):
            for name in [name for name, at in revoked.items() if at < before]:
                del revoked[name]

    def __len__(self) -> int:
        return len(self._users) + len(self._token_ids)

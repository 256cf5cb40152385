"""Where the keys of tokens come from: the settings, a file, or a URL."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tellwire.auth.keys import Key, UnusableKey
from tellwire.errors import Unauthorized

_log = logging.getLogger("tellwire.auth")

FILE_CHECK_S = 1.0
"""How often a file is looked at, in seconds."""
FILE_MAX_BYTES = 1024 * 1024


class Keyring(ABC):
    """The keys that tokens may be signed with at present."""

    def __init__(self, keys: tuple[Key, ...] = ()) -> None:
        self._keys = keys
        self.edition = 0
        """Changes when the keys do: what was checked with those before has to be checked again."""

    @property
    def keys(self) -> tuple[Key, ...]:
        return self._keys

    @property
    def algorithms(self) -> list[str]:
        """What tokens may be signed with, for all that is known."""
        return sorted({name for key in self._keys for name in key.algorithms})

    def _replace(self, keys: tuple[Key, ...]) -> None:
        if [(key.kid, key.algorithms, key.public) for key in keys] != [
            (key.kid, key.algorithms, key.public) for key in self._keys
        ]:
            self._keys = keys
            self.edition += 1

    def refresh(self) -> None:  # noqa: B027  (keys that cannot change need none)
        """Look whether there are newer keys, without waiting for them."""

    @abstractmethod
    async def find(self, kid: str | None, algorithm: str) -> Key:
        """Return the key that a token is said to be signed with; raise Unauthorized where there is none.

        Waits only for keys that are not known yet; raises Unavailable if they cannot be had.
        """

    async def aclose(self) -> None:  # noqa: B027
        """End what runs; may be called twice."""

    def _match(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key of that name; a key without a name fits any, and so does a token without one."""
        named = [key for key in self._keys if kid is not None and key.kid == kid]
        keys = named or [key for key in self._keys if kid is None or key.kid is None]
        if not keys:
            return None
        fitting = [key for key in keys if algorithm in key.algorithms]
        if not fitting:
            taken = sorted({name for key in keys for name in key.algorithms})
            raise wrong_algorithm(algorithm, taken)
        if len(fitting) > 1 and not named:
            raise Unauthorized("the token does not say which key it is signed with (kid), and there are several")
        return fitting[0]


def wrong_algorithm(algorithm: str, taken: list[str]) -> Unauthorized:
    """Say that a token is signed in a way that is not accepted."""
    return Unauthorized(f"the token is signed with {algorithm[:40]!a}; accepted here is {' or '.join(taken)}")


def unknown_key(kid: str | None) -> Unauthorized:
    """Say that a token is signed with a key that is not here."""
    return Unauthorized(f"the token is signed with a key that is not known here (kid {(kid or '')[:40]!a})")


class FixedKeys(Keyring):
    """Keys that stay as they are."""

    async def find(self, kid: str | None, algorithm: str) -> Key:
        if (key := self._match(kid, algorithm)) is None:
            raise unknown_key(kid)
        return key


class KeysInFile(FixedKeys):
    """Keys out of a file, which is read again when it changes; one that cannot be read then changes nothing.

    The file is small and on this machine, so it is read at once and not beside the loop. Raises UnusableKey where it
    cannot be used to begin with.
    """

    def __init__(self, path: Path, read: Callable[[bytes], tuple[Key, ...]], monotonic: Callable[[], float]) -> None:
        self._path = path
        self._read = read
        self._monotonic = monotonic
        self._look_at = monotonic() + FILE_CHECK_S
        try:
            self._seen = self._stamp()
            super().__init__(self._load())
        except OSError as exc:
            raise UnusableKey(f"{path} cannot be read: {exc.strerror}") from None

    def refresh(self) -> None:
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + FILE_CHECK_S
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            # Set before reading: a file that is bad is complained about once, one written meanwhile is read again.
            self._seen = stamp
            self._replace(self._load())
            _log.info("the keys of tokens were read again from %s", self._path)
        except OSError as exc:
            _log.warning("%s cannot be read (%s); the keys from before stay", self._path, exc.strerror)
        except UnusableKey as exc:
            _log.warning("%s has changed and cannot be used (%s); the keys from before stay", self._path, exc)

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> tuple[Key, ...]:
        with self._path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
        if len(data) > FILE_MAX_BYTES:
            raise UnusableKey(f"it is larger than {FILE_MAX_BYTES} bytes")
        return self._read(data)

"""Keys of tokens from a URL: fetched seldom, once at a time, and kept where they cannot be fetched."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from tellwire.auth.access import is_loopback
from tellwire.auth.keyring import Keyring, unknown_key
from tellwire.auth.keys import ALGORITHMS, SECRET_BYTES_MIN, Key, UnusableKey, read_key_set
from tellwire.errors import Unavailable

_log = logging.getLogger("tellwire.auth")

FRESH_S = 600.0
"""For how long a key set is taken as it is, in seconds, where its server does not say."""
FRESH_MIN_S = 60.0
FRESH_MAX_S = 86_400.0
PAUSE_S = 30.0
"""Least time between two fetches, in seconds: tokens with made-up keys cannot cause more."""
FIRST_PAUSE_S = 5.0
"""The same as long as there are no keys at all."""
FETCH_S = 10.0
"""Longest that a fetch may take, in seconds."""
ANSWER_MAX_BYTES = 65_536

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})", re.IGNORECASE)


class _Unusable(Exception):
    """An answer that holds no keys, and why."""


class FetchedKeys(Keyring):
    """A JWK set at a URL.

    Keys past their time are used on while newer ones are fetched beside; a key that is not in the set is looked for
    anew, if the last look was not just now. Secrets in the set are passed over: whoever can fetch it knows them.
    """

    def __init__(
        self, url: str, algorithms: tuple[str, ...], monotonic: Callable[[], float], fetch_s: float = FETCH_S
    ) -> None:
        super().__init__()
        try:
            address = httpx.URL(url)
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:
                raise ValueError("it names no host that could be reached")
        except (httpx.InvalidURL, ValueError) as exc:
            raise UnusableKey(f"this is not a URL: {exc}") from None
        if algorithms and set(algorithms) <= SECRET_BYTES_MIN.keys():
            raise UnusableKey(f"{', '.join(algorithms)} needs a secret, and no secret is taken from a URL")
        if parts.scheme == "http" and not is_loopback(parts.netloc.rpartition("@")[2]):
            _log.warning("keys of tokens come over plain http: who can change the answer on its way can make tokens")
        # The URL may hold a password, which neither we nor the HTTP client shall write into a log.
        self._url = address.copy_with(userinfo=b"")
        self._login = (address.username, address.password) if address.userinfo else None
        self._shown = str(self._url.copy_with(query=None, fragment=None))
        self._algorithms = algorithms
        self._monotonic = monotonic
        self._fetch_s = fetch_s
        self._fresh_until = 0.0
        self._next_fetch_at = 0.0
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def algorithms(self) -> list[str]:
        # Any key may be in the set tomorrow, so this is not about those of today.
        return [name for name in self._algorithms or ALGORITHMS if name not in SECRET_BYTES_MIN]

    def refresh(self) -> None:
        now = self._monotonic()
        if self._keys and not self._is_closed and now >= max(self._fresh_until, self._next_fetch_at):
            self._start()

    async def find(self, kid: str | None, algorithm: str) -> Key:
        if (key := self._match(kid, algorithm)) is not None:
            return key
        if self._fetching is not None or self._monotonic() >= self._next_fetch_at:
            # Others wait for the same fetch, so it does not end with who asked first.
            await asyncio.wait({self._start()})
            if (key := self._match(kid, algorithm)) is not None:
                return key
        if self._failed or not self._keys:
            raise Unavailable("the keys that tokens are checked with cannot be fetched now; try again later")
        raise unknown_key(kid)

    def _start(self) -> asyncio.Task[None]:
        """Return the fetch that is under way, or begin one."""
        if self._is_closed:
            raise Unavailable("this server is going away")
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        """Fetch the keys; whatever goes wrong is logged, and the keys from before stay."""
        self._failed = True
        try:
            keys, age_s = await self._download()
            self._failed = False
            self._fresh_until = self._monotonic() + min(max(age_s, FRESH_MIN_S), FRESH_MAX_S)
            self._replace(keys)
        except (TimeoutError, httpx.TimeoutException):
            self._complain(f"there was no whole answer within {self._fetch_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            self._complain(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)
        except (_Unusable, UnusableKey) as exc:
            self._complain(str(exc))
        finally:
            self._next_fetch_at = self._monotonic() + (PAUSE_S if self._keys else FIRST_PAUSE_S)
            self._fetching = None

    def _complain(self, why: str) -> None:
        kept = "those from before stay" if self._keys else "no token can be checked until they are there"
        _log.warning("the keys of tokens could not be fetched from %s (%s); %s", self._shown, why, kept)

    async def _download(self) -> tuple[tuple[Key, ...], float]:
        """Return the keys, and for how many seconds they are good."""
        # Uncompressed, so that a few bytes cannot become many; redirects are not followed, so that the keys come from
        # where the settings say and nowhere else.
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        async with (
            asyncio.timeout(self._fetch_s),
            httpx.AsyncClient(timeout=self._fetch_s, follow_redirects=False) as client,
            client.stream("GET", self._url, headers=headers, auth=self._login) as answer,
        ):
            if answer.status_code != 200:
                raise _Unusable(f"the answer has the status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _Unusable("the answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > ANSWER_MAX_BYTES:
                    raise _Unusable(f"the answer is larger than {ANSWER_MAX_BYTES} bytes")
            said = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        return read_key_set(bytes(body), self._algorithms), float(said[1]) if said else FRESH_S

    async def aclose(self) -> None:
        self._is_closed = True
        if (task := self._fetching) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

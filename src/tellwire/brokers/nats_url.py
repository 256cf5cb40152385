"""What a NATS URL says: where the servers are, how to come in, and what the log is called."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_FORM = (
    "write nats://host:4222, nats://user:password@host1:4222,host2:4222?replicas=3 for a cluster, "
    "or tls://host:4222?creds=/path/to/user.creds"
)
_OPTIONS = ("prefix", "timeout", "replicas", "storage", "ca", "creds", "nkey")

Storage = Literal["file", "memory"]


@dataclass(frozen=True)
class NatsPlace:
    """Where a NATS is, and how the log lies in its JetStream."""

    hosts: tuple[tuple[str, int], ...]
    """Servers of one cluster; any of them will do."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = None
    """A file with a user's JWT and seed, as ``nsc`` writes it."""
    nkey: str | None = None
    """A file with the seed of an nkey."""
    tls: bool = False
    ca: str | None = None
    """A file of certificates to trust instead of the system's."""
    prefix: str = "tellwire"
    """What the log is called: several can be in one account."""
    replicas: int = 1
    """On how many servers of a cluster each message lies before it is acknowledged."""
    storage: Storage = "file"
    timeout_s: float = 5.0
    """Seconds for which an operation may wait for NATS, its reconnecting included."""

    def __str__(self) -> str:
        return "NATS at " + ",".join(f"{host}:{port}" for host, port in self.hosts)

    def tls_context(self) -> ssl.SSLContext | None:
        """Make what checks the server's certificate; None without TLS."""
        return ssl.create_default_context(cafile=self.ca) if self.tls else None

    def nkey_seed(self) -> str | None:
        """Read the seed of the nkey; None where it is none that opens the door. Raises OSError."""
        return None if self.nkey is None else Path(self.nkey).read_text().strip()

    @classmethod
    def parse(cls, url: str) -> NatsPlace:
        """Read a URL; raise ValueError that says what is wrong, without the password."""
        parts = urlsplit(url)
        userinfo, _, netloc = parts.netloc.rpartition("@")
        safe = parts._replace(netloc=netloc).geturl()
        if parts.scheme not in ("nats", "tls") or parts.fragment or not netloc:
            raise ValueError(f"{safe!r} names no NATS; {_FORM}")
        if parts.path not in ("", "/"):
            raise ValueError(f"{safe!r} has a path, and NATS knows none; {_FORM}")
        if "@" in userinfo or "," in userinfo:
            raise ValueError(f"{safe!r} has a user at several servers; it stands once, before the first one: {_FORM}")
        hosts = tuple(_host(each, safe) for each in netloc.split(","))
        user, colon, password = userinfo.partition(":")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = next((name for name in options if name not in _OPTIONS), None)
        if unknown is not None:
            raise ValueError(f"{safe!r} has an unknown option {unknown!r}; the NATS broker knows {', '.join(_OPTIONS)}")
        prefix = options.get("prefix", "tellwire")
        if _PREFIX.fullmatch(prefix) is None:
            raise ValueError(f"{safe!r} has a prefix that is not 1 to 64 characters out of A-Z a-z 0-9 _ -")
        timeout = options.get("timeout", "5")
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", timeout) is None or not 0.05 <= float(timeout) <= 300:
            raise ValueError(f"{safe!r} has timeout={timeout}; it is a number of seconds from 0.05 to 300")
        replicas = options.get("replicas", "1")
        if replicas not in ("1", "2", "3", "4", "5"):
            raise ValueError(f"{safe!r} has replicas={replicas}; JetStream keeps 1 to 5 of each message")
        storage = options.get("storage", "file")
        if storage not in ("file", "memory"):
            raise ValueError(f"{safe!r} has storage={storage}; JetStream stores in file or memory")
        if "ca" in options and parts.scheme != "tls":
            raise ValueError(f"{safe!r} has ca=, which goes with TLS: write tls://")
        if bool(userinfo) + ("creds" in options) + ("nkey" in options) > 1:
            raise ValueError(f"{safe!r} names several ways to come in; name one of user, creds= and nkey=")
        return cls(
            hosts,
            unquote(user) if colon else None,
            unquote(password) if colon else None,
            unquote(user) if user and not colon else None,
            options.get("creds"),
            options.get("nkey"),
            parts.scheme == "tls",
            options.get("ca"),
            prefix,
            int(replicas),
            cast(Storage, storage),
            float(timeout),
        )


def _host(text: str, safe: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{safe!r} has a port that is not one; {_FORM}") from None
    if parts.hostname is None:
        raise ValueError(f"{safe!r} has a server without a name; {_FORM}")
    return parts.hostname, 4222 if port is None else port

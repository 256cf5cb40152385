"""What a Redis URL says: where the servers are, how to come in, and what the log is called."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_FORM = (
    "write redis://host:6379/0, rediss://user:password@host:6379/0 for TLS, or "
    "redis+sentinel://host1:26379,host2:26379/master-name/0"
)


@dataclass(frozen=True)
class RedisPlace:
    """Where a Redis is."""

    hosts: tuple[tuple[str, int], ...]
    """The server, or the Sentinels that know it."""
    master: str | None = None
    """What the Sentinels call the master; None where `hosts` is the server itself."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    """A file of certificates to trust instead of the system's."""
    prefix: str = "tellwire"
    """What the log is called: several can be in one database."""
    timeout_s: float = 5.0
    """Seconds for which an operation may wait for Redis, its reconnecting included."""

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"Redis at {where}" if self.master is None else f"Redis {self.master!r} of the Sentinels at {where}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Make what checks the server's certificate; None without TLS."""
        return ssl.create_default_context(cafile=self.ca) if self.tls else None

    @classmethod
    def parse(cls, url: str) -> RedisPlace:
        """Read a URL; raise ValueError that says what is wrong, without the password."""
        parts = urlsplit(url)
        safe = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        if parts.scheme not in _SCHEMES or parts.fragment:
            raise ValueError(f"{safe!r} names no Redis; {_FORM}")
        sentinel = parts.scheme.endswith("+sentinel")
        userinfo, _, netloc = parts.netloc.rpartition("@")
        user, colon, password = userinfo.partition(":")
        hosts = tuple(_host(each, 26379 if sentinel else 6379, safe) for each in netloc.split(","))
        path = [unquote(piece) for piece in parts.path.split("/")[1:] if piece]
        if sentinel == (len(path) == 0) and sentinel:
            raise ValueError(f"{safe!r} does not name the master that the Sentinels watch; {_FORM}")
        if not sentinel and len(hosts) > 1:
            raise ValueError(f"{safe!r} names several servers; only Sentinels can be several: {_FORM}")
        master = path.pop(0) if sentinel else None
        if len(path) > 1 or (path and not path[0].isdecimal()):
            raise ValueError(f"{safe!r} has a path that is not the number of a database; {_FORM}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        shards = options.pop("shards", "1")
        if shards != "1":
            raise ValueError(f"{safe!r} has shards={shards}; this Tellwire keeps a log in one shard")
        prefix = options.pop("prefix", "tellwire")
        if _PREFIX.fullmatch(prefix) is None:
            raise ValueError(f"{safe!r} has a prefix that is not 1 to 64 characters out of A-Z a-z 0-9 _ . -")
        timeout = options.pop("timeout", "5")
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", timeout) is None or not 0.05 <= float(timeout) <= 300:
            raise ValueError(f"{safe!r} has timeout={timeout}; it is a number of seconds from 0.05 to 300")
        ca = options.pop("ca", None)
        if ca is not None and not parts.scheme.startswith("rediss"):
            raise ValueError(f"{safe!r} has ca=, which goes with TLS: write rediss://")
        if options:
            raise ValueError(
                f"{safe!r} has an unknown option {next(iter(options))!r}; "
                "the Redis broker knows prefix, timeout, ca and shards"
            )
        return cls(
            hosts,
            master,
            int(path[0]) if path else 0,
            unquote(user) or None,
            unquote(password) if colon else None,
            parts.scheme.startswith("rediss"),
            ca,
            prefix,
            float(timeout),
        )


def _host(text: str, default_port: int, safe: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{safe!r} has a port that is not one; {_FORM}") from None
    return parts.hostname or "localhost", default_port if port is None else port

"""What a Redis URL says: where the servers are, how to come in, and what the log is called."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from itertools import count
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_FORM = (
    "write redis://host:6379/0, rediss://user:password@host:6379/0 for TLS, "
    "redis+sentinel://host1:26379,host2:26379/master-name/0, or redis+cluster://host1:6379,host2:6379?shards=3"
)

SHARDS_MAX = 64
"""Most shards of a log: a node holds a connection to each, and asks all of them how far they are."""


@dataclass(frozen=True)
class RedisPlace:
    """Where a Redis is."""

    hosts: tuple[tuple[str, int], ...]
    """The server, the Sentinels that know it, or some servers of the Cluster."""
    master: str | None = None
    """What the Sentinels call the master; None where `hosts` is the server itself."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    """A file of certificates to trust instead of the system's."""
    is_cluster: bool = False
    """Whether `hosts` are of a Redis Cluster, in which each shard has a server that it finds by itself."""
    shards: int = 1
    """In how many parts the log lies."""
    tag: str = "tellwire"
    """What stands between the braces in the names of keys; it is this that a Cluster distributes by."""
    prefix: str = "tellwire"
    """What the log is called: several can be in one database."""
    timeout_s: float = 5.0
    """Seconds for which an operation may wait for Redis, its reconnecting included."""

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        if self.master is not None:
            return f"Redis {self.master!r} of the Sentinels at {where}"
        shard = f" (shard {self.tag})" if self.tag != self.prefix else ""
        return f"the Redis Cluster at {where}{shard}" if self.is_cluster else f"Redis at {where}{shard}"

    def shard(self, number: int) -> RedisPlace:
        """Return the place of one shard: each has its own equal part of the Cluster's slots."""
        if number == 0:
            return self
        region = (_region(self.prefix, self.shards) + number) % self.shards
        tags = (f"{self.prefix}/{number}.{attempt}" for attempt in count())
        return replace(self, tag=next(tag for tag in tags if _region(tag, self.shards) == region))

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
        cluster = parts.scheme.endswith("+cluster")
        if not sentinel and not cluster and len(hosts) > 1:
            raise ValueError(f"{safe!r} names several servers; only Sentinels and a Cluster's can be several: {_FORM}")
        master = path.pop(0) if sentinel else None
        if len(path) > 1 or (path and not path[0].isdecimal()):
            raise ValueError(f"{safe!r} has a path that is not the number of a database; {_FORM}")
        if cluster and path and path[0] != "0":
            raise ValueError(f"{safe!r} names a database; a Redis Cluster has only one: leave /{path[0]} out")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        shards = options.pop("shards", "1")
        if re.fullmatch(r"[1-9][0-9]?", shards) is None or int(shards) > SHARDS_MAX:
            raise ValueError(f"{safe!r} has shards={shards}; it is a number from 1 to {SHARDS_MAX}")
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
            is_cluster=cluster,
            shards=int(shards),
            tag=prefix,
            prefix=prefix,
            timeout_s=float(timeout),
        )


def _region(tag: str, regions: int) -> int:
    """Tell in which of so many equal parts of a Cluster's slots the keys with a tag lie."""
    return int(key_slot(tag.encode()) * regions // REDIS_CLUSTER_HASH_SLOTS)


def _host(text: str, default_port: int, safe: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{safe!r} has a port that is not one; {_FORM}") from None
    return parts.hostname or "localhost", default_port if port is None else port

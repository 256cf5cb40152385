"""The URLs of a Redis: what they say, and what is wrong with others."""

from __future__ import annotations

import sys

import pytest

from tellwire.brokers import make_broker
from tellwire.brokers.redis_url import RedisPlace
from tellwire.names import Namespaces


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", RedisPlace((("localhost", 6379),))),
        ("redis://h", RedisPlace((("h", 6379),))),
        ("redis://h:7000/3", RedisPlace((("h", 7000),), db=3)),
        ("redis://[::1]:7000/", RedisPlace((("::1", 7000),))),
        ("redis://:p%40ss@h/0", RedisPlace((("h", 6379),), password="p@ss")),
        (
            "redis://u:p@h?timeout=0.5&prefix=a.b&shards=1",
            RedisPlace((("h", 6379),), username="u", password="p", tag="a.b", prefix="a.b", timeout_s=0.5),
        ),
        ("rediss://h:1/0?ca=/x.pem", RedisPlace((("h", 1),), tls=True, ca="/x.pem")),
        ("redis+sentinel://a,b:5/m", RedisPlace((("a", 26379), ("b", 5)), "m")),
        ("rediss+sentinel://u:p@a/m/2", RedisPlace((("a", 26379),), "m", 2, "u", "p", True)),
        ("redis+cluster://a,b:5?shards=3", RedisPlace((("a", 6379), ("b", 5)), is_cluster=True, shards=3)),
    ],
)
def test_redis_url_is_read(url: str, place: RedisPlace) -> None:
    assert RedisPlace.parse(url) == place


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://u:secret@h:port/0", "a port that is not one"),
        ("redis://u:secret@h/news", "not the number of a database"),
        ("redis://u:secret@h/0/1", "not the number of a database"),
        ("redis://u:secret@h,i/0", "names several servers"),
        ("redis+sentinel://u:secret@h", "does not name the master"),
        ("redis+sentinel://u:secret@h/m/n", "not the number of a database"),
        ("redis://u:secret@h?prefix={a}", "has a prefix that is not"),
        ("redis://u:secret@h?timeout=0", "a number of seconds from 0.05"),
        ("redis://u:secret@h?timeout=soon", "a number of seconds from 0.05"),
        ("redis://u:secret@h?ca=x", "goes with TLS"),
        ("redis://u:secret@h?shards=0", "a number from 1 to 64"),
        ("redis://u:secret@h?shards=65", "a number from 1 to 64"),
        ("redis+cluster://u:secret@h/2", "has only one: leave /2 out"),
        ("redis://u:secret@h?speed=9", "unknown option 'speed'; the Redis broker knows prefix"),
        ("redis://u:secret@h#x", "names no Redis"),
    ],
)
def test_redis_url_that_is_wrong_is_refused_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        make_broker(url, Namespaces())
    assert "secret" not in str(caught.value)


def test_redis_password_is_not_shown() -> None:
    place = RedisPlace.parse("redis://u:secret@h/0")
    assert "secret" not in repr(place) + str(place)


def test_redis_broker_says_which_library_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hiredis", None)
    for name in [name for name in sys.modules if name.startswith("tellwire.brokers.redis")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        ValueError, match=r"needs the library 'hiredis'; install it with: pip install 'tellwire\[redis\]'"
    ):
        make_broker("redis://h", Namespaces())

"""What a NATS URL says, and what is wrong with those that say nothing."""

from __future__ import annotations

import pytest

from tellwire.brokers import make_broker
from tellwire.brokers.nats import NatsBroker
from tellwire.brokers.nats_messages import channel_of, token_of
from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import InvalidData
from tellwire.names import Namespaces


def test_nats_url_of_a_server() -> None:
    place = NatsPlace.parse("nats://localhost")
    assert place.hosts == (("localhost", 4222),)
    assert (place.username, place.token, place.tls, place.prefix, place.replicas) == (None, None, False, "tellwire", 1)


def test_nats_url_of_a_cluster() -> None:
    place = NatsPlace.parse("tls://ann:s%3Acret@n1:4222,n2,[::1]:4224?replicas=3&timeout=0.5&storage=memory&ca=/x.pem")
    assert place.hosts == (("n1", 4222), ("n2", 4222), ("::1", 4224))
    assert (place.username, place.password, place.tls, place.ca) == ("ann", "s:cret", True, "/x.pem")
    assert (place.replicas, place.timeout_s, place.storage) == (3, 0.5, "memory")


def test_nats_url_with_a_token_and_with_credentials() -> None:
    assert NatsPlace.parse("nats://t0ken@host").token == "t0ken"
    assert NatsPlace.parse("nats://host?creds=/a.creds").creds == "/a.creds"
    assert NatsPlace.parse("nats://host?nkey=/a.nk").nkey == "/a.nk"


@pytest.mark.parametrize("url", ["nats://ann:s3cret@host", "nats://s3cret@host"])
def test_nats_url_hides_what_is_secret(url: str) -> None:
    assert "s3cret" not in repr(NatsPlace.parse(url)) + str(NatsPlace.parse(url))


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("nats://", "names no NATS"),
        ("http://host", "names no NATS"),
        ("nats://host/0", "a path"),
        ("nats://host:port", "a port that is not one"),
        ("nats://host:99999", "a port that is not one"),
        ("nats://one,,two", "a server without a name"),
        ("nats://ann:s3cret@one,ben:s3cret@two", "a user at several servers"),
        ("nats://host?replicas=6", "replicas=6"),
        ("nats://host?replicas=three", "replicas=three"),
        ("nats://host?storage=disk", "storage=disk"),
        ("nats://host?timeout=0", "timeout=0"),
        ("nats://host?timeout=soon", "timeout=soon"),
        ("nats://host?prefix=a.b", "prefix"),
        ("nats://host?shards=3", "unknown option 'shards'"),
        ("nats://host?ca=/x.pem", "write tls://"),
        ("nats://ann:s3cret@host?creds=/x", "several ways to come in"),
    ],
)
def test_nats_url_that_is_wrong(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        NatsPlace.parse(url)
    assert "s3cret" not in str(caught.value)


def test_nats_broker_is_made_of_its_url() -> None:
    for url in ("nats://localhost", "tls://localhost"):
        assert isinstance(make_broker(url, Namespaces()), NatsBroker)


@pytest.mark.parametrize("channel", ["news", "a.b.", "$presence:room", "a:b/@=+~#$!-_", "a*b>c d", "%2E", "\u00e9"])
def test_nats_subject_of_a_channel(channel: str) -> None:
    token = token_of(channel)
    assert not set(token) & set(". *>\t\r\n\0")
    assert token.isascii()
    assert channel_of(token) == channel


def test_nats_subjects_of_channels_are_distinct() -> None:
    channels = ["a.b", "a%2Eb", "a%252Eb", "ab", "a b", "A.b"]
    assert len({token_of(channel) for channel in channels}) == len(channels)
    with pytest.raises(InvalidData):
        token_of("\ud800")

"""Which STUN and TURN servers somebody is told of, and what their credentials are."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from tellwire.config import InvalidSetting, load_settings
from tellwire.ice import IceServers, IceSettings, link_fields

SECRET = "a secret that coturn knows as well"
TURN = ("turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:443?transport=tcp")
SETTINGS = IceSettings(("stun:turn.example.org:3478",), TURN, SECRET)


def test_credentials_are_an_expiry_and_a_user_under_the_secret() -> None:
    (stun, turn), expires_in_ms = IceServers(SETTINGS).list_for("ada", 1000.25)
    assert (stun.urls, stun.username, stun.credential) == (("stun:turn.example.org:3478",), None, None)
    assert (turn.urls, turn.username, expires_in_ms) == (TURN, "1600:ada", 599_750)
    expected = hmac.digest(SECRET.encode(), b"1600:ada", hashlib.sha1)
    assert turn.credential == base64.b64encode(expected).decode()


def test_credentials_end_with_the_token() -> None:
    (_, turn), expires_in_ms = IceServers(SETTINGS).list_for("ada", 1000.0, 1060.5)
    assert (turn.username, expires_in_ms) == ("1060:ada", 60_000)


def test_credentials_of_a_token_that_is_just_over_are_over() -> None:
    (_, turn), expires_in_ms = IceServers(SETTINGS).list_for("ada", 1000.0, 990.0)
    assert (turn.username, expires_in_ms) == ("990:ada", 0)


def test_who_is_not_known_gets_no_relay() -> None:
    servers, expires_in_ms = IceServers(SETTINGS).list_for(None, 1000.0)
    assert ([server.urls for server in servers], expires_in_ms) == ([SETTINGS.ice_stun_urls], None)


def test_nothing_is_configured() -> None:
    assert IceServers().list_for("ada", 1000.0) == ([], None)


@pytest.mark.parametrize("user", ["a b", "ada:1", 'a"\r\nLink: <x>', "zélé", "\ud800", "", "x" * 500, "東京" * 50])
def test_any_user_makes_a_plain_name_of_its_own(user: str) -> None:
    (_, turn), _ = IceServers(SETTINGS).list_for(user, 1000.0)
    assert turn.username is not None
    assert turn.username.isascii()
    assert turn.username.isprintable()
    assert len(turn.username) < 200
    assert turn.username.count(":") == 1
    others = [IceServers(SETTINGS).list_for(other, 1000.0)[0][1].username for other in (user + "x", user + "%", "ab")]
    assert turn.username not in others


def test_link_fields_are_those_of_whip() -> None:
    servers, _ = IceServers(SETTINGS).list_for("ada", 1000.0)
    fields = link_fields(servers)
    assert fields[0] == (b"link", b'<stun:turn.example.org:3478>; rel="ice-server"')
    assert len(fields) == 3
    start = b'<turns:turn.example.org:443?transport=tcp>; rel="ice-server"; username="1600:ada"; credential="'
    assert fields[2][1].startswith(start)
    assert fields[2][1].endswith(b'"; credential-type="password"')


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TELLWIRE_ICE_TURN_URLS": "turn:t.example"}, "ice_turn_secret of at least 16 bytes"),
        ({"TELLWIRE_ICE_TURN_URLS": "turn:t.example", "TELLWIRE_ICE_TURN_SECRET": "short"}, "ice_turn_secret"),
        ({"TELLWIRE_ICE_TURN_URLS": "https://t.example", "TELLWIRE_ICE_TURN_SECRET": SECRET}, "not such a URL"),
        ({"TELLWIRE_ICE_TURN_URLS": "turn:t?transport=sctp", "TELLWIRE_ICE_TURN_SECRET": SECRET}, "not such a URL"),
        ({"TELLWIRE_ICE_STUN_URLS": "turn:t.example"}, "ice_stun_urls"),
        ({"TELLWIRE_ICE_STUN_URLS": 'stun:t>;rel="x"'}, "ice_stun_urls"),
        ({"TELLWIRE_ICE_TURN_TTL_S": "10"}, "a whole number from 60 to 86400"),
    ],
)
def test_settings_that_make_no_sense_are_refused(environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSetting, match=says) as caught:
        load_settings({}, environ)
    assert SECRET not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(SETTINGS)

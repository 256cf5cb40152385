"""Settings come from flags, the environment and a file, in that order, and what is wrong is named with its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from docs import settings_page
from tellwire.auth import AuthSettings
from tellwire.config import (
    InvalidSetting,
    Server,
    Settings,
    default_text,
    load_settings,
    namespace_settings,
    room_settings,
    settings,
)
from tellwire.ice import IceSettings
from tellwire.limits import Limits
from tellwire.names import Namespace
from tellwire.transports.rtc.settings import RtcSettings
from tellwire.webhooks import WebhookSettings

FILE = """\
# A server for two
[server]
port = 9001
origins = ["https://a.example", "http://localhost:3000"]

[limits]
heartbeat_s = 10

[namespaces.default]
history_messages = 7

[namespaces.chat]
policy = "latest"
ephemeral = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tellwire.toml"


def load(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    return load_settings(flags or {}, environ or {}, file)


def refusal(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> InvalidSetting:
    with pytest.raises(InvalidSetting) as refused:
        load(flags, environ, file)
    return refused.value


def test_nothing_given_is_every_default() -> None:
    assert load() == Settings(Server(), Limits(), namespaces=(Namespace(),))


def test_default_server_is_on_loopback_and_not_open() -> None:
    assert Server().is_on_loopback
    assert not Server().open


def test_file_is_read(file: Path) -> None:
    file.write_text(FILE)
    wanted = load(file=file)
    assert wanted.server.port == 9001
    assert wanted.server.origins == ("https://a.example", "http://localhost:3000")
    assert wanted.limits.heartbeat_s == 10
    assert wanted.namespaces == (
        Namespace(history_messages=7),
        Namespace("chat", policy="latest", ephemeral=True),
    )


def test_flag_wins_over_environment_over_file_over_default(file: Path) -> None:
    file.write_text("[server]\nport = 1\nlog_level = 'error'\nlog_format = 'json'\n")
    environ = {"TELLWIRE_PORT": "2", "TELLWIRE_LOG_LEVEL": "debug"}
    server = load({"port": "3"}, environ, file).server
    assert (server.port, server.log_level, server.log_format, server.host) == (3, "debug", "json", "127.0.0.1")


def test_file_may_be_named_in_the_environment(file: Path) -> None:
    file.write_text("[server]\nport = 4\n")
    assert load(environ={"TELLWIRE_CONFIG": str(file)}).server.port == 4


def test_namespace_may_be_set_key_by_key_in_different_places(file: Path) -> None:
    file.write_text("[namespaces.chat]\nhistory_messages = 5\npolicy = 'latest'\n")
    environ = {"TELLWIRE_NAMESPACES": "chat:policy=disconnect ticker:ephemeral=yes"}
    wanted = load({"namespace": ["chat:history_messages=6"]}, environ, file)
    assert wanted.namespaces[1:] == (
        Namespace("chat", history_messages=6, policy="disconnect"),
        Namespace("ticker", ephemeral=True),
    )


def test_namespace_without_entries_exists(file: Path) -> None:
    file.write_text("[namespaces.chat]\n")
    assert load(file=file).namespaces == (Namespace(), Namespace("chat"))


@pytest.mark.parametrize(
    "text", ["[namespaces]\nchat = {history_messages = 5}", "namespaces.chat.history_messages = 5"]
)
def test_every_way_to_write_a_table_is_read(file: Path, text: str) -> None:
    file.write_text(text)
    assert load(file=file).namespaces[1].history_messages == 5


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.key)
def test_every_default_can_be_given_as_text(setting: object) -> None:
    found = next(each for each in settings() if each == setting)
    if text := default_text(found):
        wanted = load(environ={found.variable: text})
        assert getattr(getattr(wanted, found.room), found.key) == found.default


def test_lists_in_the_environment_are_split() -> None:
    wanted = load(environ={"TELLWIRE_ORIGINS": "https://a.example, https://b.example"})
    assert wanted.server.origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("no", False), ("FALSE", False)])
def test_yes_and_no_in_the_environment(text: str, value: bool) -> None:
    assert load(environ={"TELLWIRE_OPEN": text}).server.open is value


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[server]\n\nprot = 1", 3, "did you mean port?"),
        ("[server]\nport = 1\n[limit]\nx = 1", 3, "did you mean limits?"),
        ("# top\nport = 1", 2, "port belongs into [server]"),
        ("[server]\nport = '80'", 2, "port takes a whole number from 0 to 65535, not '80'"),
        ("[server]\nport = 65536", 2, "from 0 to 65535"),
        ("[server]\nport = true", 2, "a whole number"),
        ("[server]\nlog_level = 'loud'", 2, "one of debug, info, warning, error"),
        ("[server]\nopen = 'yes'", 2, "true or false"),
        ("[server]\norigins = 'https://a.example'", 2, "a list of texts"),
        ("[server]\norigins = [1]", 2, "a list of texts"),
        ("[server]\norigins = ['https://a.example/']", 2, "is not an origin"),
        ("[server]\norigins = [\n  'a.example',\n]", 2, "is not an origin"),
        ("[server]\nbroker = 'nowhere://x'", 2, "names no broker"),
        ("[limits]\nheartbeat_s = 0", 2, "a number above 0"),
        ("[limits]\nheartbeat_s = inf", 2, "a number above 0"),
        ("[limits]\nheartbeat_s = nan", 2, "a number above 0"),
        ("[limits]\nheartbeat_s = -1.5", 2, "a number above 0"),
        ("[limits]\nframe_max_bytes = 1.5", 2, "a whole number above 0"),
        ("[limits]\nframe_max_bytes = 99999999999999999999", 2, "a whole number above 0"),
        ("[namespaces.chat]\nhistory = 1", 2, "did you mean history_"),
        ("\n[namespaces.'two words']", 2, "is not a namespace"),
        ("[namespaces.a]\n[namespaces.b]\npolicy = 'drop'", 3, "one of catch_up, latest, disconnect"),
        ("[namespaces]\nchat = {policy = 'drop'}", 2, "one of catch_up, latest, disconnect"),
        ("[namespaces]\nchat = 1", 2, "write [namespaces.chat] on a line of its own"),
        ("namespaces = 1", 1, "namespaces are tables"),
        ("server = 1", 1, "write [server] on a line of its own"),
        ("[server]\nport == 1", 2, "this is not TOML"),
        ("[server]\nport = 1\nport = 2", 3, "this is not TOML"),
        ("[server\n", 1, "this is not TOML"),
    ],
)
def test_line_at_fault_is_named(file: Path, text: str, line: int, says: str) -> None:
    file.write_text(text)
    refused = refusal(file=file)
    assert refused.where == f"{file}:{line}"
    assert says in str(refused)
    assert str(refused).startswith(f"{file}:{line}: ")


def test_file_that_is_no_text_is_named_with_its_line(file: Path) -> None:
    file.write_bytes(b"[server]\n# \xff\n")
    assert str(refusal(file=file)) == f"{file}:2: this is not TOML: it is not UTF-8"


def test_file_that_is_not_there_is_named(file: Path) -> None:
    assert str(refusal(file=file)) == f"{file}: the settings file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TELLWIRE_PROT": "1"}, "TELLWIRE_PROT: there is no setting 'TELLWIRE_PROT' in the environment; did you mean"),
        ({"TELLWIRE_PORT": "http"}, "TELLWIRE_PORT: port takes a whole number from 0 to 65535, not 'http'"),
        ({"TELLWIRE_PORT": ""}, "TELLWIRE_PORT: port takes"),
        ({"TELLWIRE_OPEN": "maybe"}, "TELLWIRE_OPEN: open takes true or false, not 'maybe'"),
        ({"TELLWIRE_NAMESPACES": "chat"}, "TELLWIRE_NAMESPACES: 'chat' is not NAME:KEY=VALUE"),
        ({"TELLWIRE_NAMESPACES": "chat:polcy=latest"}, "did you mean policy?"),
        ({"TELLWIRE_TLS_CERT": "/nowhere/cert.pem"}, "TELLWIRE_TLS_CERT: there is no file '/nowhere/cert.pem'"),
    ],
)
def test_variable_at_fault_is_named(environ: dict[str, str], says: str) -> None:
    assert says in str(refusal(environ=environ))


def test_variables_of_a_kubernetes_service_are_no_settings() -> None:
    environ = {
        "TELLWIRE_PORT": "tcp://10.0.0.1:8000",
        "TELLWIRE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "TELLWIRE_SERVICE_HOST": "10.0.0.1",
        "TELLWIRE_SERVICE_PORT_HTTP": "8000",
    }
    assert load(environ=environ) == load()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"port": "many"}, "--port: port takes"),
        ({"poll_wait_max_s": "-3"}, "--poll-wait-max-s: poll_wait_max_s takes a number above 0, not '-3'"),
        ({"namespace": ["chat:history_messages=x"]}, "--namespace: history_messages takes a whole number"),
        ({"host": ""}, "--host: host is empty"),
    ],
)
def test_flag_at_fault_is_named(flags: dict[str, object], says: str) -> None:
    assert says in str(refusal(flags))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_address_beyond_loopback_needs_open(host: str) -> None:
    assert "say --open" in str(refusal({"host": host}))
    assert load({"host": host, "open": True}).server.host == host


def test_address_beyond_loopback_needs_no_more_than_a_key() -> None:
    assert load({"host": "0.0.0.0", "token_key": "k" * 32}).auth.has_key
    assert "open" in str(refusal({"open": True, "token_key": "k" * 32}))
    assert "jsonp" in str(refusal({"jsonp": True}))
    assert "trusted_proxies" in refusal({"trusted_proxies": ("nobody",)}).where.replace("-", "_")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert load({"host": host}).server.is_on_loopback


@pytest.mark.parametrize(("given", "other"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_certificate_and_key_go_together(tmp_path: Path, given: str, other: str) -> None:
    path = tmp_path / "one.pem"
    path.touch()
    assert f"{given} needs {other} beside it" in str(refusal({given: str(path)}))


@pytest.mark.parametrize("room", [Server, Limits, AuthSettings, WebhookSettings, IceSettings, RtcSettings, Namespace])
def test_rooms_are_frozen_and_documented(room: type) -> None:
    known = room_settings(room, "room")
    assert all(setting.doc for setting in known if setting.key != "name")
    assert room.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed does not name it


def test_no_two_settings_share_a_name() -> None:
    keys = [setting.key for setting in settings()]
    assert len(keys) == len(set(keys))
    assert {setting.key for setting in settings()} == {
        field.name
        for room in (Server, Limits, AuthSettings, WebhookSettings, IceSettings, RtcSettings)
        for field in dataclasses.fields(room)
    }
    assert namespace_settings()


def test_settings_page_is_current() -> None:
    assert settings_page.PAGE.read_text() == settings_page.text(), "run make docs"


def test_addresses_of_data_channels_are_addresses() -> None:
    with pytest.raises(InvalidSetting, match=r"'example.org' is no IP address"):
        load_settings({"rtc_address": ("example.org",)}, {})
    assert load_settings({"rtc_address": ("203.0.113.7", "2001:db8::7")}, {}).rtc.rtc_address[1] == "2001:db8::7"

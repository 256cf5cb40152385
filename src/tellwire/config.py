"""Settings: one frozen dataclass per room, read from flags, the environment and a TOML file.

A flag wins over the environment, the environment over the file, the file over the default. The dataclasses are the
one source: the flags of ``tellwire serve``, the ``TELLWIRE_*`` names, the tables of the file and the page
docs/reference/settings.md are all made from their fields and the docstrings under them.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import ipaddress
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from tellwire.auth import AuthSettings
from tellwire.brokers import BROKERS, OF_ONE_PROCESS
from tellwire.errors import TellwireError
from tellwire.ice import IceSettings
from tellwire.limits import Limits
from tellwire.names import Namespace
from tellwire.toml_lines import TomlFile, TomlSyntaxError
from tellwire.transports.rtc.settings import RtcSettings
from tellwire.webhooks.settings import WebhookSettings

NUMBER_MAX = 2**53
"""Largest number that any setting takes; more could not be written as a JSON number."""


class InvalidSetting(TellwireError):
    """A setting that cannot be used; ``where`` is a flag, an environment variable or ``file:line``."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(detail)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}"


@dataclass(frozen=True)
class Server:
    """Where the server listens, whom it lets in, and where its logs live."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a key for tokens, or `open`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    """TCP port to listen on; 0 takes a free one."""
    open: bool = False
    """Let everybody publish and subscribe without a token, also from other machines."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may connect besides the server's own, such as https://example.org."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is believed, such as 127.0.0.1 or 10.0.0.0/8."""
    metrics_open: bool = False
    """Show /metrics to everybody who can reach the server; else only to operators (admin: metrics)."""
    broker: str = "memory://"
    """Where messages are kept: memory:// forgets them with the process, sqlite:///path keeps them in a file,
    redis://host and nats://host share them among nodes."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Processes that listen on the port, each a node of its own with its own limits; more than one need a broker that
    they share, such as redis://host."""
    node_name: str | None = None
    """What operators call this server, among all of one log; else machine and process, such as web-1:4711."""
    tls_cert: str | None = None
    """PEM file with the certificate, and those above it; TLS and HTTP/2 are on where it is given."""
    tls_key: str | None = None
    """PEM file with the certificate's private key."""
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    """TCP port for gRPC, on the same address and with the same certificate; 0 takes a free one. Without it there is no
    gRPC. Needs the extra tellwire[grpc]."""
    grpc_client_ca: str | None = None
    """PEM file with the authority of clients' certificates: whoever connects to the gRPC port has to have one."""
    traces: bool = False
    """Make spans of publishes and deliveries; needs the extra tellwire[otel]."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged, on standard error."""
    log_format: Literal["text", "json"] = "text"
    """Log lines for people, or one JSON object per line."""

    @property
    def ports(self) -> int:
        """On how many ports TCP connections come in."""
        return 1 if self.grpc_port is None else 2

    @property
    def is_on_loopback(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class Settings:
    """Everything that `tellwire.server.run` needs to know."""

    server: Server = field(default_factory=Server)
    limits: Limits = field(default_factory=Limits)
    auth: AuthSettings = field(default_factory=AuthSettings)
    hooks: WebhookSettings = field(default_factory=WebhookSettings)
    ice: IceSettings = field(default_factory=IceSettings)
    rtc: RtcSettings = field(default_factory=RtcSettings)
    namespaces: tuple[Namespace, ...] = (Namespace(),)


class Setting(NamedTuple):
    """One field of one room, with the names it goes by."""

    room: str
    key: str
    type: Any
    default: Any
    doc: str

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        return "TELLWIRE_" + self.key.upper()


class _Given(NamedTuple):
    """A value somebody gave, and where; ``text`` where it still has to be read as the field's type."""

    value: object
    where: str
    text: bool


_ROOMS: dict[str, type] = {
    "server": Server,
    "limits": Limits,
    "auth": AuthSettings,
    "hooks": WebhookSettings,
    "ice": IceSettings,
    "rtc": RtcSettings,
}
_CLIENT_VARIABLES = frozenset({"TELLWIRE_URL", "TELLWIRE_TOKEN", "TELLWIRE_CA_FILE", "TELLWIRE_CONFIG"})
_NODE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Kubernetes puts these into every container beside a Service that is called "tellwire".
_SERVICE_LINK = re.compile(r"TELLWIRE_(SERVICE_(HOST|PORT)\w*|PORT_\d+_\w+)")


@cache
def room_settings(room: type, name: str) -> tuple[Setting, ...]:
    """Return the settings of a dataclass, in the order of its fields."""
    hints = get_type_hints(room, include_extras=True)
    docs = _attribute_docs(room)
    return tuple(
        Setting(
            name,
            f.name,
            _given_type(hints[f.name]),
            f.default if f.default is not MISSING else None,
            docs.get(f.name, ""),
        )
        for f in fields(room)
    )


def _given_type(hint: Any) -> Any:
    """Return what a setting is where it is given: its type but for None."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if get_origin(hint) in (Union, UnionType) and len(kinds) == 1 else hint


def settings() -> tuple[Setting, ...]:
    """Return every setting that has a flag and an environment variable of its own."""
    return tuple(setting for name, room in _ROOMS.items() for setting in room_settings(room, name))


def namespace_settings() -> tuple[Setting, ...]:
    """Return what can be set for each namespace."""
    return tuple(setting for setting in room_settings(Namespace, "namespaces") if setting.key != "name")


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read and check all settings; raise InvalidSetting with the place at fault.

    `flags` has the keys of `settings()`, None where a flag was not given, and ``namespace`` with a list of
    ``NAME:KEY=VALUE``. Without `file`, the one that TELLWIRE_CONFIG names is read.
    """
    if file is None and environ.get("TELLWIRE_CONFIG"):
        file = Path(environ["TELLWIRE_CONFIG"])
    given: dict[tuple[str, ...], _Given] = {}
    if file is not None:
        given |= _from_file(file)
    given |= _from_environment(environ)
    given |= _from_flags(flags)

    rooms = {name: _build(room, name, given, (name,)) for name, room in _ROOMS.items()}
    names = ["default", *sorted({path[1] for path in given if path[0] == "namespaces"} - {"default"})]
    namespaces = tuple(_build(Namespace, "namespaces", given, ("namespaces", name), name=name) for name in names)
    settings = Settings(**rooms, namespaces=namespaces)
    _check_server(settings, given)
    return settings


def _from_file(path: Path) -> dict[tuple[str, ...], _Given]:
    try:
        file = TomlFile.read(path)
    except TomlSyntaxError as exc:
        raise InvalidSetting(f"{path}:{exc.line}", f"this is not TOML: {exc}") from None
    except OSError as exc:
        raise InvalidSetting(str(path), f"the settings file cannot be read: {exc.strerror}") from None

    given: dict[tuple[str, ...], _Given] = {}

    def take_table(table: object, path: tuple[str, ...], known: Iterable[Setting]) -> None:
        where = file.where(path)
        if not isinstance(table, dict):
            raise InvalidSetting(where, f"{'.'.join(path)} is a table; write [{'.'.join(path)}] on a line of its own")
        keys = [setting.key for setting in known]
        for key, value in table.items():
            if key not in keys:
                raise InvalidSetting(file.where((*path, key)), _unknown(key, keys, f"in [{'.'.join(path)}]"))
            given[*path, key] = _Given(value, file.where((*path, key)), text=False)

    tables = [*_ROOMS, "namespaces"]
    for name, table in file.values.items():
        if name in _ROOMS:
            take_table(table, (name,), room_settings(_ROOMS[name], name))
        elif name != "namespaces":
            home = next((setting.room for setting in settings() if setting.key == name), None)
            hint = f"{name} belongs into [{home}]" if home else _unknown(name, tables, "at the top of the file")
            raise InvalidSetting(file.where((name,)), hint)
        elif not isinstance(table, dict):
            raise InvalidSetting(file.where((name,)), "namespaces are tables: write [namespaces.chat], for example")
        else:
            for namespace, entries in table.items():
                take_table(entries, (name, namespace), namespace_settings())
                given.setdefault(
                    (name, namespace, "name"), _Given(namespace, file.where((name, namespace)), text=False)
                )
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[tuple[str, ...], _Given]:
    by_variable = {setting.variable: setting for setting in settings()}
    given: dict[tuple[str, ...], _Given] = {}
    for name, value in environ.items():
        if not name.startswith("TELLWIRE_") or name in _CLIENT_VARIABLES or _SERVICE_LINK.fullmatch(name):
            continue
        if name == "TELLWIRE_PORT" and value.startswith("tcp://"):
            continue  # a Kubernetes service link too
        if name == "TELLWIRE_NAMESPACES":
            for entry in value.replace(",", " ").split():
                given |= _namespace_entry(entry, name)
        elif name in by_variable:
            setting = by_variable[name]
            given[setting.room, setting.key] = _Given(value, name, text=True)
        else:
            known = [*by_variable, *_CLIENT_VARIABLES, "TELLWIRE_NAMESPACES"]
            raise InvalidSetting(name, _unknown(name, known, "in the environment"))
    return given


def _from_flags(flags: Mapping[str, object]) -> dict[tuple[str, ...], _Given]:
    given: dict[tuple[str, ...], _Given] = {}
    for setting in settings():
        value = flags.get(setting.key)
        if value is not None and value != ():
            given[setting.room, setting.key] = _Given(value, setting.flag, text=isinstance(value, str))
    entries = flags.get("namespace") or ()
    assert isinstance(entries, (tuple, list))
    for entry in entries:
        given |= _namespace_entry(entry, "--namespace")
    return given


def _namespace_entry(entry: str, where: str) -> dict[tuple[str, ...], _Given]:
    """Read ``NAME:KEY=VALUE``."""
    name, colon, rest = entry.partition(":")
    key, equals, value = rest.partition("=")
    if not (name and colon and key and equals):
        raise InvalidSetting(where, f"{entry!r} is not NAME:KEY=VALUE, such as chat:history_messages=50")
    keys = [setting.key for setting in namespace_settings()]
    if key not in keys:
        raise InvalidSetting(where, _unknown(key, keys, f"of namespace {name}"))
    return {("namespaces", name, key): _Given(value, where, text=True)}


def _build(
    room: type, room_name: str, given: Mapping[tuple[str, ...], _Given], path: tuple[str, ...], **extra: object
) -> Any:
    """Make a room's dataclass out of what was given under `path`."""
    values = dict(extra)
    where = ""
    for setting in room_settings(room, room_name):
        one = given.get((*path, setting.key))
        if one is not None:
            where = one.where
            if setting.key not in extra:
                values[setting.key] = _converted(setting, one)
    try:
        return room(**values)
    except ValueError as exc:
        raise InvalidSetting(where, str(exc)) from None


def _converted(setting: Setting, given: _Given) -> object:
    """Return the given value as the field's type, or say what it should have been."""
    value = given.value
    if given.text and get_origin(setting.type) is tuple:
        value = str(value).replace(",", " ").split()
    if given.text and setting.type is bool and isinstance(value, str):
        value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
            value.lower(), value
        )
    try:
        converted: object = msgspec.convert(value, setting.type, strict=not given.text)
    except msgspec.ValidationError:
        converted = None
    if converted is not None and isinstance(converted, (int, float)) and not isinstance(converted, bool):
        bounded = get_origin(setting.type) is Annotated
        if not math.isfinite(converted) or converted > NUMBER_MAX or (converted <= 0 and not bounded):
            converted = None
    if converted is None:
        raise InvalidSetting(given.where, f"{setting.key} takes {describe_type(setting.type)}, not {_shown(value)}")
    return converted


def default_text(setting: Setting) -> str:
    """Return a default as it would be written in the environment; empty where there is none."""
    default = setting.default
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return " ".join(default)
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def describe_type(hint: Any) -> str:
    """Say in words what a setting takes."""
    if get_origin(hint) is Annotated:
        kind, meta = get_args(hint)[:2]
        low = meta.ge if meta.ge is not None else 0
        number = "a whole number" if kind is int else "a number"
        return f"{number} from {low} to {meta.le}" if meta.le is not None else f"{number}, at least {low}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    words = {bool: "true or false", int: "a whole number above 0", float: "a number above 0", str: "a text"}
    return words.get(hint) or ("a list of texts" if get_origin(hint) is tuple else "a text")


def _check_server(settings: Settings, given: Mapping[tuple[str, ...], _Given]) -> None:
    """Refuse what each setting allows by itself and all together do not."""
    server = settings.server

    def require(key: str, is_fine: bool, detail: str, room: str = "server") -> None:
        if not is_fine:
            found = given.get((room, key))
            raise InvalidSetting(found.where if found else "--" + key.replace("_", "-"), detail)

    for origin in server.origins:
        require(
            "origins",
            _is_origin(origin),
            f"{_shown(origin)} is not an origin; one looks like https://example.org, with nothing after the name",
        )
    known = " or ".join(f"{scheme}://" for scheme in BROKERS)
    require(
        "broker",
        server.broker.partition("://")[0] in BROKERS and "://" in server.broker,
        f"{_shown(server.broker)} names no broker; a broker's URL begins with {known}",
    )
    require(
        "workers",
        server.workers == 1 or server.broker.partition("://")[0] not in OF_ONE_PROCESS,
        f"{server.workers} workers need a log that they share, and {server.broker.partition('://')[0]}:// is one "
        "process's own; name a broker of several, such as redis://127.0.0.1, or leave workers at 1",
    )
    require(
        "node_name",
        server.node_name is None or _NODE_NAME.fullmatch(server.node_name) is not None,
        f"{_shown(server.node_name)} is no name for a node: letters, digits and -_.: only, 1 to 64 of them",
    )
    for key, path, other, other_path in (
        ("tls_cert", server.tls_cert, "tls_key", server.tls_key),
        ("tls_key", server.tls_key, "tls_cert", server.tls_cert),
    ):
        if path is not None:
            require(key, Path(path).is_file(), f"there is no file {_shown(path)}")
            require(key, other_path is not None, f"{key} needs {other} beside it")
    if server.grpc_client_ca is not None:
        path = server.grpc_client_ca
        require("grpc_client_ca", Path(path).is_file(), f"there is no file {_shown(path)}")
        fine = server.grpc_port is not None and server.tls_cert is not None
        says = "grpc_client_ca checks certificates on the gRPC port: it needs grpc_port, tls_cert and tls_key beside it"
        require("grpc_client_ca", fine, says)
    require(
        "grpc_port",
        server.workers == 1 or server.grpc_port != 0,
        "several workers share one gRPC port, so it cannot be any that is free; name one",
    )
    require("host", bool(server.host), "host is empty; 0.0.0.0 listens on all addresses")
    for text in server.trusted_proxies:
        says = f"{_shown(text)} is neither an address nor a network; they look like 127.0.0.1 and 10.0.0.0/8"
        require("trusted_proxies", _is_network(text), says)
    decides = settings.auth.has_key or settings.hooks.hook_connect_url is not None
    require(
        "host",
        server.open or server.is_on_loopback or decides,
        f"{server.host} can be reached from other machines, and anybody there could publish and subscribe. "
        "Give a key for tokens (--token-key-file, see `tellwire token --help`), listen on 127.0.0.1, "
        "or say --open if that is what you want",
    )
    require(
        "open",
        not (server.open and decides),
        "open lets everybody in without a token, but a key for tokens or hook_connect_url is set; take one away",
    )
    require(
        "jsonp",
        not settings.auth.jsonp or settings.auth.has_key,
        "jsonp answers scripts of any site, so it needs tokens: give a key for them (token_key_file)",
        "auth",
    )
    _check_rtc(settings, require)


def _check_rtc(settings: Settings, require: Callable[..., None]) -> None:
    for text in settings.rtc.rtc_address:
        says = f"{_shown(text)} is no IP address; clients are told to send there, such as 203.0.113.7"
        require("rtc_address", "/" not in text and _is_network(text), says, "rtc")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return text == "*" or bool(parts.scheme and parts.hostname and text == f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        return False


def _unknown(name: str, known: Iterable[str], place: str) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no setting {_shown(name)} {place}; {hint}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _attribute_docs(cls: type) -> dict[str, str]:
    """Return the docstrings that stand under a class's fields, each as one line.

    Python keeps no such strings at run time; without the source (a frozen program) there are none.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, SyntaxError):
        return {}
    definition = tree.body[0]
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for before, node in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            docs[before.target.id] = " ".join(node.value.value.split())
    return docs

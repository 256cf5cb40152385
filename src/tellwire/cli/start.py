"""The command ``tellwire serve``."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import msgspec
from rich.console import Console
from rich.text import Text

from tellwire import __version__
from tellwire.auth import redact
from tellwire.cli.supervisor import tell_supervisor
from tellwire.config import (
    InvalidSetting,
    Server,
    Settings,
    default_text,
    describe_type,
    load_settings,
    namespace_settings,
    settings,
)
from tellwire.errors import TellwireError
from tellwire.limits import raise_descriptor_limit

SECRETS = frozenset({"token_key", "hook_secret"})
"""Settings whose values are shown to nobody."""


class _SettingsCommand(click.Command):
    """A command with a flag for every setting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in settings():
            if setting.type is bool:
                on = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
                option = click.Option([on], default=None, help=setting.doc)
            else:
                takes = describe_type(setting.type).removeprefix("a ").removeprefix("an ")
                shown = default_text(setting)
                default = f"  [default: {shown}]" if shown else ""
                option = click.Option(
                    [setting.flag],
                    metavar=_metavar(takes),
                    multiple=isinstance(setting.default, tuple),
                    help=setting.doc + default,
                )
            self.params.append(option)


def _metavar(takes: str) -> str:
    if takes.startswith("one of "):
        return takes.removeprefix("one of ").replace(", ", "|")
    return "NUMBER" if "number" in takes else "TEXT"


@click.command(
    cls=_SettingsCommand,
    epilog="""\b
Every flag can also be given as an environment variable (--poll-wait-max-s is TELLWIRE_POLL_WAIT_MAX_S) or in a TOML
file ([limits] poll_wait_max_s = 30). A flag wins over the environment, the environment over the file.
\b
Examples:
  tellwire serve --broker sqlite:///tellwire.db
  tellwire serve --namespace chat:history_messages=100 --namespace ticker:policy=latest
  tellwire serve --tls-cert cert.pem --tls-key key.pem
""",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.  [env: TELLWIRE_CONFIG]")
@click.option(
    "--namespace",
    multiple=True,
    metavar="NAME:KEY=VALUE",
    help="Set something for the channels NAME:...; may be repeated.",
)
def serve(config: Path | None, **flags: Any) -> None:
    """Start a server.

    Without settings it listens on http://127.0.0.1:8000, open to everything on this machine and to nothing else.
    """
    try:
        wanted = load_settings(flags, os.environ, config)
        _check_certificate(wanted.server)
        _check_address(wanted.server.host, wanted.server.port, "--port")
        if wanted.server.grpc_port is not None:
            _check_address(wanted.server.host, wanted.server.grpc_port, "--grpc-port")
        set_up_logging(wanted)
        if not _run(wanted):
            raise click.exceptions.Exit(1)
    except InvalidSetting as exc:
        raise click.ClickException(str(exc)) from None
    except (TellwireError, ValueError) as exc:
        raise click.ClickException(f"the server could not start: {exc}") from None


def _run(wanted: Settings) -> bool:
    """Serve until told to stop; return whether all has ended as it should."""
    # Loading what is needed takes a moment that the other commands need not wait for.
    from tellwire.server import base_url, run

    if wanted.server.workers == 1:
        grpc: list[str] = []
        run(wanted, lambda url: _greet(wanted, url, *grpc), on_grpc=grpc.append)
        return True
    from tellwire.workers import supervise

    server = wanted.server
    has_tls = server.tls_cert is not None
    return supervise(wanted, lambda listener: _greet(wanted, base_url(listener, server.host, has_tls=has_tls)))


@click.command(
    "check-config",
    cls=_SettingsCommand,
    epilog="""\b
Examples:
  tellwire check-config --config tellwire.toml
  TELLWIRE_PORT=9000 tellwire check-config
""",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.  [env: TELLWIRE_CONFIG]")
@click.option("--namespace", multiple=True, metavar="NAME:KEY=VALUE", help="As for serve.")
def check_config(config: Path | None, **flags: Any) -> None:
    """Check the settings that serve would start with, and print those that are not the defaults.

    Certificate, keys, broker's URL and hooks are looked at; nothing is started, made or asked. Exits with 1 and says
    where the fault is if there is one.
    """
    from tellwire.server import make_node

    try:
        wanted = load_settings(flags, os.environ, config)
        _check_certificate(wanted.server)
        make_node(wanted)
    except InvalidSetting as exc:
        raise click.ClickException(str(exc)) from None
    except (TellwireError, ValueError) as exc:
        raise click.ClickException(f"the server could not start: {exc}") from None
    for setting in settings():
        value = getattr(getattr(wanted, setting.room), setting.key)
        if value != setting.default:
            shown = "(set)" if setting.key in SECRETS else redact(_without_query(str(value)))
            click.echo(f"{setting.room}.{setting.key} = {shown}")
    for namespace in wanted.namespaces:
        for setting in namespace_settings():
            value = getattr(namespace, setting.key)
            if value != setting.default:
                click.echo(f"namespaces.{namespace.name}.{setting.key} = {value}")
    too_few = raise_descriptor_limit(wanted.limits.connections_max, wanted.server.ports)
    if too_few is not None:
        click.echo(f"warning: {too_few}", err=True)
    click.echo("the settings can be used")


def _without_query(text: str) -> str:
    """Leave out what of a URL may be secret: who asks with which password, and its parameters."""
    parts = urlsplit(text)
    if not parts.scheme or not parts.netloc:
        return text
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))


def _check_address(host: str, port: int, flag: str) -> None:
    """Find out whether the address can be listened on, while that can still be said in a sentence."""
    where = f"port {port} of {host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                # As asyncio will bind it: a port in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except socket.gaierror as exc:
        raise click.ClickException(f"{host!r} is no address that is known here ({exc.strerror})") from None
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            says = f"{where} is taken by another program; stop that one, or choose another with {flag}"
            raise click.ClickException(says) from None
        if exc.errno == errno.EACCES:
            raise click.ClickException(f"{where} is not for you; ports below 1024 are the system's") from None
        says = f"{host} cannot be listened on ({exc.strerror}); is it an address of this machine?"
        raise click.ClickException(says) from None


def _check_certificate(server: Server) -> None:
    """Find out whether the certificate and its key can be read and belong together."""
    if server.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_cert, server.tls_key)
    except OSError as exc:  # an SSLError too
        why = (exc.reason or "no PEM in it") if isinstance(exc, ssl.SSLError) else exc.strerror
        says = f"{server.tls_cert} and {server.tls_key} are not a certificate and its key in PEM ({why})"
        raise click.ClickException(says) from None


def _greet(wanted: Settings, url: str, grpc_url: str | None = None) -> None:
    """Say where the server listens, who may come in, and what to try."""
    server = wanted.server
    local = url
    if wanted.auth.has_key:
        who = "closed: whoever comes shows a token (tellwire token makes one)"
    elif wanted.hooks.hook_connect_url is not None:
        who = "closed: the backend says who may come in"
    elif server.open and not server.is_on_loopback:
        who = "open: everybody who can reach this address may publish and subscribe"
    else:
        who = "open, on loopback only: programs on this machine may publish and subscribe, nobody else"
    insecure = "-k " if server.tls_cert else ""
    for wildcard, loopback in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        local = local.replace(wildcard, loopback)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble(("Tellwire ", "bold"), f"{__version__} listens on ", (url, "bold cyan")))
    if server.grpc_port is not None:
        shown_host = f"[{server.host}]" if ":" in server.host else server.host
        grpc_url = grpc_url or f"{'grpcs' if server.tls_cert else 'grpc'}://{shown_host}:{server.grpc_port}"
        console.print(Text.assemble("  gRPC on ", (grpc_url, "bold cyan")))
    console.print(f"  {who}")
    if server.workers > 1:
        console.print(f"  {server.workers} workers, each a node of its own")
    console.print(f"  messages are kept in {_without_query(server.broker)}")
    console.print("Try, each in a terminal of its own:")
    shown = ""
    if wanted.auth.has_key:
        shown = '-H "Authorization: Bearer $TOKEN" '
        console.print(Text("  export TOKEN=…  made with `tellwire token --subscribe news --publish news`", "green"))
    for line in (
        f"curl {insecure}{shown}-N '{local}/v1/events?channel=news'",
        f"""curl {insecure}{shown}-d '{{"channel":"news","data":"hello"}}' {local}/v1/messages""",
        f"{local}/  in a browser",
    ):
        console.print(Text("  " + line, "green"))
    tell_supervisor("READY=1")


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, worker: int = 0) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return msgspec.json.encode(entry).decode()


class _TextFormatter(logging.Formatter):
    """One line for people, and a traceback under it; without the tokens that somebody else's text may hold."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def set_up_logging(wanted: Settings, worker: int = 0) -> None:
    """Log to standard error as the settings say; `worker` is the number of this process among several."""
    handler = logging.StreamHandler(sys.stderr)
    if wanted.server.log_format == "json":
        handler.setFormatter(_JsonFormatter(worker))
    else:
        name = f"%(name)s[{worker}]" if worker else "%(name)s"
        handler.setFormatter(_TextFormatter(f"%(asctime)s %(levelname)s {name}: %(message)s"))
    # It would note every URL that is asked, and whatever is secret in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(level=wanted.server.log_level.upper(), handlers=[handler], force=True)

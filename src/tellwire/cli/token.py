"""The command ``tellwire token``: makes tokens and keys, and explains tokens."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from tellwire.auth.grants import OPERATIONS
from tellwire.auth.settings import AuthSettings

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw]?)", re.ASCII)
_NEVER = "never"


class _Duration(click.ParamType[float | None]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Read 90s, 5m, 12h, 7d, 2w, a number of seconds, or never."""
        if not isinstance(value, str) or value == _NEVER:
            return None
        found = _DURATION.fullmatch(value.strip())
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a time; write 90s, 15m, 12h, 7d, or never", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


@click.command(
    epilog="""\b
A pattern is a name in which * stands for any characters: news:* allows news:sport and news:sport:ski.
A token without patterns may nothing but read the channels that --channel gives it.
\b
Examples:
  tellwire token --new-key                               a fresh secret; put it into TELLWIRE_TOKEN_KEY
  tellwire token --user alice --subscribe 'news:*'       a token for an hour
  tellwire token --user bob --publish room:42 --subscribe room:42 --presence room:42 --expires 12h
  tellwire token --user alice --channel inbox:alice --info '{"name":"Alice"}'
  tellwire token --user ops --admin --expires 15m        for the operator's pages
  tellwire token --explain TOKEN                         what it says, and whether it is good
  pbpaste | tellwire token --explain -                   the same, from standard input
  tellwire token --new-key --algorithm EdDSA > pair.pem  a key pair
  tellwire token --public --key-file pair.pem            its public half, for the server
"""
)
@click.option("--user", help="Whose token it is (claim sub).")
@click.option(
    "--subscribe", multiple=True, metavar="PATTERN", help="Channels it may read; may be repeated, as all such."
)
@click.option("--publish", multiple=True, metavar="PATTERN", help="Channels it may publish to.")
@click.option("--presence", multiple=True, metavar="PATTERN", help="Channels where it may see who is there, and enter.")
@click.option("--call", multiple=True, metavar="PATTERN", help="Methods it may call.")
@click.option("--admin", is_flag=True, help="It may do all that operators do.")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="A channel that it reads without asking.")
@click.option("--info", metavar="JSON", help="What others may see of the user.")
@click.option(
    "--expires",
    type=_Duration(),
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long it is good: 90s, 15m, 12h, 7d, or never.",
)
@click.option("--id", "token_id", help="Name under which it can be revoked (claim jti).  [default: a random one]")
@click.option("--audience", envvar="TELLWIRE_TOKEN_AUDIENCE", show_envvar=True, help="Whom it is for (claim aud).")
@click.option("--issuer", envvar="TELLWIRE_TOKEN_ISSUER", show_envvar=True, help="Who made it (claim iss).")
@click.option(
    "--key",
    envvar="TELLWIRE_TOKEN_KEY",
    show_envvar=True,
    help="Secret, or private key in PEM. Others on this machine can see it here; better use the environment or a file.",
)
@click.option(
    "--key-file", envvar="TELLWIRE_TOKEN_KEY_FILE", show_envvar=True, help="File with it; - is standard input."
)
@click.option("--key-id", help="Name of the key, where the server has a JWK set (header kid).")
@click.option("--algorithm", help="How to sign: HS256, RS256, ES256, EdDSA ...  [default: what fits the key]")
@click.option("--jwks", envvar="TELLWIRE_TOKEN_JWKS", show_envvar=True, help="JWK set to check with: a file or URL.")
@click.option("--explain", metavar="TOKEN", help="Say what a token may, and whether it is good; - is standard input.")
@click.option("--new-key", is_flag=True, help="Print a new secret, or with --algorithm a key pair in PEM.")
@click.option("--public", is_flag=True, help="Print the public half of the key: in PEM, or with --key-id as a JWK set.")
@click.pass_context
def token(ctx: click.Context, /, **given: Any) -> None:
    """Make a token, or a key for tokens; or explain a token.

    A token says who somebody is and what they may do. It is signed with the secret that the server has, or with a
    private key whose public half the server has.
    """
    tasks = [
        flag
        for flag, on in (
            ("--explain", given["explain"]),
            ("--new-key", given["new_key"]),
            ("--public", given["public"]),
        )
        if on
    ]
    if len(tasks) > 1:
        raise click.UsageError(f"{' and '.join(tasks)} are different things; ask for one at a time")
    # What signs takes a moment to load, which the other commands need not wait for.
    from tellwire.auth import making
    from tellwire.auth.keys import UnusableKey
    from tellwire.cli import token_explaining
    from tellwire.errors import TellwireError

    _prefer_flags(ctx, given)
    try:
        if given["new_key"]:
            click.echo(making.new_key(given["algorithm"]), nl=False)
        elif given["public"]:
            click.echo(making.public_half(_key(given), given["key_id"]), nl=False)
        elif given["explain"]:
            _explain(given, token_explaining)
        else:
            _make(given, making)
    except (UnusableKey, TellwireError) as exc:
        raise click.ClickException(str(exc)) from None


def _prefer_flags(ctx: click.Context, given: dict[str, Any]) -> None:
    """Forget a key from the environment where another is given as a flag."""
    names = ("key", "key_file", "jwks")
    if any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names):
        for name in names:
            if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                given[name] = None


def _key(given: dict[str, Any]) -> bytes:
    if given["key"] and given["key_file"]:
        raise click.ClickException("there are two keys, in --key and in --key-file; give one")
    if given["key_file"]:
        return _read(given["key_file"])
    if given["key"]:
        return str(given["key"]).encode()
    raise click.ClickException(
        "there is no key to sign with; set TELLWIRE_TOKEN_KEY, or say --key-file FILE. "
        "tellwire token --new-key prints a fresh one"
    )


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise click.ClickException(f"{path} cannot be read: {exc.strerror}") from None


def _make(given: dict[str, Any], making: Any) -> None:
    claims: dict[str, Any] = {}
    for claim, name in (("sub", "user"), ("iss", "issuer"), ("aud", "audience"), ("jti", "token_id")):
        if given[name] is not None:
            claims[claim] = given[name]
    can: dict[str, list[str]] = {
        operation: list(given[operation]) for operation in OPERATIONS if operation != "admin" and given[operation]
    }
    if given["admin"]:
        can["admin"] = ["*"]
    if can:
        claims["can"] = can
    if given["channels"]:
        claims["channels"] = list(given["channels"])
    if given["info"] is not None:
        try:
            claims["info"] = msgspec.json.decode(given["info"])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise click.ClickException(f"--info is not JSON: {exc}") from None
    if not can and not given["channels"]:
        click.echo("this token may nothing; --subscribe, for example, lets it read", err=True)
    made = making.make_token(claims, _key(given), given["expires"], given["algorithm"], given["key_id"])
    click.echo(made)


def _explain(given: dict[str, Any], explaining: Any) -> None:
    text: str = given["explain"]
    if text == "-":
        if given["key_file"] == "-":
            raise click.UsageError("standard input can be the token or the key, not both")
        text = sys.stdin.buffer.read(1024 * 1024).decode(errors="replace")
    key, key_file = given["key"], given["key_file"]
    if key_file == "-":
        key, key_file = _read("-").decode(errors="replace"), None
    settings = AuthSettings(
        token_key=key,
        token_key_file=key_file,
        token_jwks=given["jwks"],
        token_algorithms=(given["algorithm"],) if given["algorithm"] else (),
        token_audience=given["audience"],
        token_issuer=given["issuer"],
    )
    lines, is_good = explaining.explain(text.strip(), settings)
    for line in lines:
        click.echo(line)
    if not is_good:
        sys.exit(1)

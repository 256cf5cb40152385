"""Write docs/reference/settings.md out of the dataclasses of the settings.

Run as ``make docs``; a test fails while the page is not up to date.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tellwire.config import Setting, default_text, describe_type, namespace_settings, settings

PAGE = Path(__file__).parent / "reference" / "settings.md"

_HEAD = """# Settings

A setting comes from a flag of `tellwire serve`, from an environment variable, from a TOML file
(`--config tellwire.toml`, or `TELLWIRE_CONFIG`), or from its default. A flag wins over the environment, the environment
over the file. A name that does not exist, or a value that makes no sense, stops the server before it listens, and the
flag, the variable or the line of the file is named.

```toml
[server]
port = 9000
broker = "sqlite:///tellwire.db"

[limits]
heartbeat_s = 15

[namespaces.chat]
history_messages = 100
```

Sizes are in bytes and times in seconds or milliseconds, as the names say. A variable that holds a list separates its
items by spaces or commas; a flag is repeated. Paths begin at the directory that the server is started in.
Logs go to standard error.
"""

_SERVER = "Where the server listens, whom it lets in, and where its logs live."
_LIMITS = "Bounds on what a peer can make the server do or keep. [Limits](../limits.md) says what happens beyond them."
_AUTH = "Which tokens are accepted, and what may be done without one. See [Authentication](../authentication.md)."
_ICE = "STUN and TURN servers, by which clients find a way to each other. See [Calls](../calls.md)."
_RTC = "WebRTC data channels to the server. See [Data channels](../webrtc.md)."
_HOOKS = "The backend that is asked over HTTP. See [Hooks](../hooks.md)."

_NAMESPACES = """A channel's namespace is what stands before the first colon of its name: `chat:lobby` is in
`chat`. Channels without a colon, and those whose namespace has no settings, are in `default`. What a namespace does not
set has the default of this table, not that of the namespace `default`.

In the file: a table `[namespaces.NAME]`. As a flag, repeated: `--namespace chat:history_messages=100`. In the
environment: `TELLWIRE_NAMESPACES="chat:history_messages=100 ticker:policy=latest"`.
"""

_CLIENT = """`TELLWIRE_URL` is where `tellwire pub`, `sub`, `tail`, `history` and the operators' commands find the
server, unless `--url` says it; `TELLWIRE_TOKEN` is the token by which they say who they are, unless `--token` does;
`TELLWIRE_CA_FILE` names the authority whose certificates they accept beside the usual ones, unless `--ca-file` does.
`tellwire compare` takes the last two as well.
"""


def text() -> str:
    """Return the text of the page."""
    known = settings()
    parts = [_HEAD]
    rooms = {"server": _SERVER, "limits": _LIMITS, "auth": _AUTH, "hooks": _HOOKS, "ice": _ICE, "rtc": _RTC}
    for room, says in rooms.items():
        parts += [f"## `[{room}]`\n", f"{says}\n", _table(setting for setting in known if setting.room == room)]
    parts += ["## `[namespaces.NAME]`\n", _NAMESPACES, _namespace_table(), "## Of the other commands\n", _CLIENT]
    return "\n".join(parts)


def _table(rows: Iterable[Setting]) -> str:
    lines = ["| key | flag | variable | takes | default | |", "|---|---|---|---|---|---|"]
    for row in rows:
        takes = _cell(describe_type(row.type))
        lines.append(
            f"| `{row.key}` | `{row.flag}` | `{row.variable}` | {takes} | {_default(row)} | {_cell(row.doc)} |"
        )
    return "\n".join(lines) + "\n"


def _namespace_table() -> str:
    lines = ["| key | takes | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{row.key}` | {_cell(describe_type(row.type))} | {_default(row)} | {_cell(row.doc)} |"
        for row in namespace_settings()
    ]
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    shown = default_text(setting)
    return f"`{shown}`" if shown else "none"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def write() -> None:
    """Bring the page up to date."""
    PAGE.write_text(text())


if __name__ == "__main__":
    write()

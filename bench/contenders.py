"""Who is measured: how each server is started, with which settings, and how the load generator talks to it."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
PAYLOAD_BYTES = 126
TOKENS = 4000
"""Tokens made for a row; at most as many clients come."""

Talk = Mapping[str, object]


@dataclass(frozen=True)
class Places:
    """Where things are that servers are started from."""

    cache: Path
    python: Path
    """Of the project's own environment."""
    peers_python: Path
    """Of the environment with the peers."""
    server_command: str
    """How Tellwire is started, with {port} and {broker}."""


@dataclass(frozen=True)
class Contender:
    """A server, and the load generator's settings for the roles it can play."""

    name: str
    settings: str
    """What was set for speed, for the report."""
    command: Callable[[Places, int], list[str]]
    talks: Mapping[str, Talk]
    missing: Callable[[Places], str | None] = field(default=lambda _: None)
    """Says what is not installed, and how to get it."""
    ports: int = 1
    """It listens on so many, one above the other."""


# A run's messages must not count as duplicates of an earlier run's.
_RUN = secrets.token_hex(4)
_WS: Talk = {"sub_path": "/v1/ws", "pub_path": "/v1/ws", "data_bytes": PAYLOAD_BYTES - 2}


def _publish(channel: str) -> str:
    run = _RUN + secrets.token_hex(2)
    return f'{{"type":"publish","ref":{{ref}},"channel":"{channel}","id":"{run}-{{ref}}","data":"{{data}}"}}'


def _subscribe(channel: str, extra: str = "") -> dict[str, object]:
    return {
        "sub_hello1": f'{{"type":"subscribe","ref":1,"channel":"{channel}"{extra}}}',
        "sub_answer1": '"type":"subscribed"',
    }


def recovering(cursor: str, messages: int) -> Talk:
    """Return the settings for clients that come back and have to be given what they missed."""
    talk = {**_WS, **_subscribe("bench", f',"since":"{cursor}"'), "sub_ready_messages": messages}
    del talk["pub_path"]
    return talk


def tellwire(broker: str = "memory://", name: str = "Tellwire", *, more: str = "") -> Contender:
    """Return Tellwire with its default settings, on one of its brokers; `more` is added to its command."""

    def command(places: Places, port: int) -> list[str]:
        return [
            part.format(port=port, broker=broker.format(cache=places.cache), python=places.python, cache=places.cache)
            for part in shlex.split(f"{places.server_command} {more}")
        ]

    talks = {
        "fan": {**_WS, **_subscribe("bench"), "message": _publish("bench")},
        "sse": {**_WS, "sub_wire": "sse", "sub_path": "/v1/events?channel=bench", "message": _publish("bench")},
        "poll": {
            **_WS,
            "sub_wire": "poll",
            "sub_path": "/v1/messages?channel=bench&wait=60",
            "message": _publish("bench"),
        },
        "rooms": {
            "sub_path": "/v1/ws",
            "data_bytes": PAYLOAD_BYTES - 2,
            **_subscribe("room{room}"),
            "message": _publish("room{room}"),
        },
        "acks": {**_WS, "message": _publish("bench")},
    }
    settings = "default settings, but one connection may publish as much as it can"
    return Contender(name, f"{settings}; {more}" if more else settings, command, talks)


def with_tokens(algorithm: str, cache: Path) -> Contender:
    """Return Tellwire with a key, and with a token for each client, made afresh and kept in `cache`."""
    from tellwire.auth.making import make_token, new_key

    key = cache / f"{algorithm}.key"
    tokens = cache / f"{algorithm}.tokens"
    key.write_text(new_key(algorithm))
    claims = {"can": {"subscribe": ["bench"], "publish": ["bench"]}}
    secret = key.read_bytes()
    lines = [make_token({**claims, "sub": f"user{n}"}, secret, 3600, algorithm) for n in range(TOKENS)]
    tokens.write_text("\n".join(lines) + "\n")
    plain = tellwire(name=f"Tellwire, {algorithm}", more=f"--token-key-file {{cache}}/{key.name}")
    talk = {**plain.talks["fan"], "sub_path": "/v1/ws?token={token}", "tokens": str(tokens)}
    del talk["pub_path"]
    return replace(plain, talks={"fan": talk})


BARE = Contender(
    "Tellwire's bare core",
    "the same, but that nothing of what came after the core (limits, rights, hooks, counters) is asked for a publish",
    lambda places, port: [str(places.python), str(Path(__file__).parent / "bare_core.py"), str(port)],
    {"acks": {**_WS, "message": _publish("bench")}},
)


def python_peer(script: str, *arguments: str) -> Callable[[Places, int], list[str]]:
    """Return what starts one of the peers' scripts."""
    return lambda places, port: [str(places.peers_python), str(PEERS / script), str(port), *arguments]


def pip_missing(package: str) -> Callable[[Places], str | None]:
    """Return what says that a package of the peers is not installed."""

    def missing(places: Places) -> str | None:
        if any(places.peers_python.parent.parent.glob(f"lib/python*/site-packages/{package}")):
            return None
        return f"{package} could not be installed; see what pip said above, then: make bench"

    return missing


SEND_LOOP = Contender(
    "C loop over send()",
    "gcc -O2; one send() per subscriber and message, nothing else",
    lambda places, port: [str(places.cache / "send_loop"), str(port)],
    {"fan": {"sub_path": "/sub", "pub_path": "/pub", "message": "{data}"}},
)

UWEBSOCKETS = Contender(
    "uWebSockets (socketify)",
    "its topics (app.publish), no compression, max_backpressure 256 MiB so that nothing is dropped, idle_timeout 0",
    python_peer("uws.py"),
    {
        "fan": {"sub_path": "/sub", "pub_path": "/pub", "message": "{data}"},
        "acks": {"pub_path": "/echo", "data_bytes": PAYLOAD_BYTES - 2, "message": _publish("bench")},
    },
    pip_missing("socketify"),
)

_ENGINE_IO = "/socket.io/?EIO=4&transport=websocket"


def _engine_io(side: str) -> dict[str, object]:
    """Return how a Socket.IO client says hello (its protocol, version 5)."""
    return {
        f"{side}_path": _ENGINE_IO, f"{side}_hello1": "", f"{side}_answer1": "0{", f"{side}_hello2": "40",
        f"{side}_answer2": "40{",
    }  # fmt: skip


SOCKETIO_TALKS: Mapping[str, Talk] = {
    "fan": {
        **_engine_io("sub"), "sub_hello3": '42["join","bench"]', "sub_answer3": "joined", **_engine_io("pub"),
        "message": '42["publish","{data}"]',
    },
    "rooms": {
        **_engine_io("sub"), "sub_hello3": '42["join","{room}"]', "sub_answer3": "joined",
        "message": '42["say","{data}"]',
    },
    "acks": {**_engine_io("pub"), "message": '42{ref}["kept","{data}"]'},
}  # fmt: skip

SOCKETIO = Contender(
    "python-socketio",
    "uvicorn, uvloop, httptools, ws=websockets-sansio, WebSocket transport only, no compression, "
    "async_handlers=False, monitor_clients=False, msgspec for JSON; what it acknowledges is not kept",
    python_peer("socketio_rooms.py", "websockets-sansio"),
    SOCKETIO_TALKS,
    pip_missing("socketio"),
)

STARLETTE = Contender(
    "Starlette",
    "uvicorn, uvloop, httptools, ws=websockets-sansio, no compression; a loop of send_text over the room",
    python_peer("starlette_rooms.py", "websockets-sansio"),
    {"rooms": {"sub_path": "/{room}", "message": "{data}"}},
    pip_missing("starlette"),
)

BARE_ACKS = Contender(
    "bare websockets + msgspec",
    "sans-IO ServerProtocol on uvloop; decodes each publish, appends it to a list, answers; one write per read",
    python_peer("bare_acks.py"),
    {"acks": {"pub_path": "/", "data_bytes": PAYLOAD_BYTES - 2, "message": _publish("bench")}},
    pip_missing("websockets"),
)

_NCHAN_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")

_NCHAN_CONF = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {place}/nginx.pid;
error_log {place}/error.log warn;
load_module {module};
events {{ worker_connections {files}; use epoll; multi_accept on; }}
http {{
  access_log off;
  gzip off;
  tcp_nodelay on;
  nchan_shared_memory_size 256M;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /sub {{
      nchan_subscriber websocket;
      nchan_subscriber_first_message newest;
      nchan_channel_id bench;
    }}
    location = /events {{
      nchan_subscriber eventsource;
      nchan_subscriber_first_message newest;
      nchan_channel_id bench;
    }}
    location = /recover {{
      nchan_subscriber websocket;
      nchan_subscriber_first_message oldest;
      nchan_channel_id bench;
    }}
    location = /post {{
      nchan_publisher http;
      nchan_channel_id bench;
    }}
    location = /pub {{
      nchan_publisher websocket;
      nchan_channel_id bench;
    }}
  }}
}}
"""


def _nchan_module() -> Path | None:
    paths = (Path(place) / "ngx_nchan_module.so" for place in _NCHAN_MODULES)
    return next((path for path in paths if path.exists()), None)


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _nchan_command(places: Places, port: int) -> list[str]:
    place = places.cache / "nginx"
    place.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    conf = _NCHAN_CONF.format(user=user, files=12_000, place=place, module=_nchan_module(), port=port)
    (place / "nginx.conf").write_text(conf)
    return [str(_nginx()), "-p", str(place), "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")]


def _nchan_missing(_: Places) -> str | None:
    if _nginx() is None or _nchan_module() is None:
        return "nginx with nchan is not installed. On Debian or Ubuntu: sudo apt-get install nginx libnginx-mod-nchan"
    return None


NCHAN = Contender(
    "nchan",
    "nginx with one worker, epoll, multi_accept, no access log, no gzip, tcp_nodelay; nchan's defaults for messages",
    _nchan_command,
    {
        "fan": {"sub_path": "/sub", "pub_path": "/pub", "message": "{data}"},
        "recover": {"sub_path": "/recover", "message": "{data}"},
    },
    _nchan_missing,
)

NCHAN_SSE = replace(
    NCHAN,
    name="nchan, SSE",
    talks={"fan": {"sub_wire": "sse", "sub_path": "/events", "pub_path": "/pub", "message": "{data}"}},
)

PEERS_ALL = (UWEBSOCKETS, SEND_LOOP, NCHAN, SOCKETIO, STARLETTE, BARE_ACKS)

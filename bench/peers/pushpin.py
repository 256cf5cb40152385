"""Pushpin, with the backend that it asks what to hold: one process each, ended together.

``pushpin.py PORT FOLDER``: clients come to PORT, and publishers to the PULL socket of ZeroMQ on the port above it. The
next one up is there when requests are answered: Condure takes connections before that, and closes them.
"""

import http.client
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

# https://pushpin.org/docs/configuration/, and Debian's own file for the rest. Its limits on messages are counted in
# deliveries: the usual 2,500 a second hold nearly everything back, and with any number at all it works them off in
# ticks of a timer. Debian starts Zurl by itself; here it belongs to the run.
CONFIG = """
[global]
include={{libdir}}/internal.conf
rundir={place}/run
ipc_prefix=p-
port_offset=0
stats_connection_ttl=120

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={place}/log
log_level=1
client_buffer_size=65536
client_maxconn=50000

[proxy]
zurl_out_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in
zurl_out_stream_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in-stream
zurl_in_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-out
routesfile={place}/routes
debug=false
auto_cross_origin=false
updates_check=off

[handler]
push_in_spec=tcp://127.0.0.1:{publish_port}
stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats
command_spec=ipc://{{rundir}}/{{ipc_prefix}}command
message_rate=0
message_hwm=1000000
connection_subscription_max=20
stats_format=tnetstring
"""


ANSWER = """HTTP/1.1 200 OK\r
Content-Type: text/event-stream\r
Content-Length: 0\r
Grip-Hold: stream\r
Grip-Channel: bench\r
\r
"""


class Backend(socketserver.StreamRequestHandler):
    """Answers each request by having Pushpin hold it (https://pushpin.org/docs/protocols/grip/)."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line == b"\r\n":
                self.wfile.write(ANSWER.encode())


class Server(socketserver.ThreadingTCPServer):
    """Takes as many requests at once as a thousand clients make."""

    request_queue_size = 4096
    daemon_threads = True


def wait_for(pushpin: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a request is held, which is when its answer's head comes, or there is no Pushpin any more."""
    while pushpin.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/bench")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        finally:
            connection.close()


def main() -> None:
    port, place = int(sys.argv[1]), Path(sys.argv[2])
    for name in ("run", "log"):
        (place / name).mkdir(parents=True, exist_ok=True)
    backend = Server(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    (place / "routes").write_text(f"* 127.0.0.1:{backend.server_address[1]}\n")
    (place / "pushpin.conf").write_text(CONFIG.format(place=place, port=port, publish_port=port + 1))
    pushpin = subprocess.Popen(["pushpin", f"--config={place / 'pushpin.conf'}", "--merge-output"])
    wait_for(pushpin, port)
    with socket.create_server(("127.0.0.1", port + 2)):
        sys.exit(pushpin.wait())


main()

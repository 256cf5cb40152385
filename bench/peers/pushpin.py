"""Pushpin, with the backend that it asks what to hold: one process each, ended together."""

import http.server
import subprocess
import sys
import threading
from pathlib import Path


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers each request by having Pushpin hold it (https://pushpin.org/docs/protocols/grip/)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Type", "text/event-stream"),
            ("Content-Length", "0"),
            ("Grip-Hold", "stream"),
            ("Grip-Channel", self.path.strip("/")),
        ):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    port, place = sys.argv[1], Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    route = f"* 127.0.0.1:{backend.server_address[1]}"
    sys.exit(subprocess.call(["pushpin", f"--port=127.0.0.1:{port}", f"--route={route}", "--loglevel=1"], cwd=place))


main()

"""uWebSockets, through socketify: topics for the fan-out, or an echo.

Publishers' messages go to every subscriber of /sub through uWebSockets' own topic tree; /echo answers each message
with itself. No compression; sockets that fall behind are neither cut nor skipped.
"""

import sys

from socketify import App, OpCode

SETTINGS = {"compression": 0, "max_payload_length": 65536, "idle_timeout": 0, "max_backpressure": 256 * 1024 * 1024}


def main() -> None:
    app = App()

    def on_message(ws, message, opcode) -> None:
        app.publish("bench", message, OpCode.TEXT)

    def on_echo(ws, message, opcode) -> None:
        ws.send(message, OpCode.TEXT)

    app.ws("/sub", {**SETTINGS, "open": lambda ws: ws.subscribe("bench")})
    app.ws("/pub", {**SETTINGS, "message": on_message})
    app.ws("/echo", {**SETTINGS, "message": on_echo})
    app.listen({"host": "127.0.0.1", "port": int(sys.argv[1])}, lambda config: None)
    app.run()


main()

"""A device and its operator talk: commands up, pushes down, over one stream (bidirectional).

    .venv/bin/python examples/services/device.py 127.0.0.1:50051 boiler
    .venv/bin/python examples/services/device.py 127.0.0.1:50051 boiler operator

What is typed is said to the other one; the device answers "status" by itself.
"""

import json
import queue
import sys
import threading
from collections.abc import Iterator

import grpc

from tellwire.protocol.proto.tellwire_pb2 import Command, Commands, Data, Message, PublishRequest, SubscribeCommand
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub


class Talk:
    """One side of the talk."""

    def __init__(self, device: str, who: str) -> None:
        self._channel = f"devices:{device}"
        self._who = who
        self._commands: queue.Queue[Commands | None] = queue.Queue()

    def commands(self) -> Iterator[Commands]:
        """Begin to read, and then say what there is to be said."""
        subscribe = SubscribeCommand(channel=self._channel, last=20)
        yield Commands(commands=[Command(ref=1, subscribe=subscribe)])
        yield from iter(self._commands.get, None)

    def say(self, text: str) -> None:
        """Say something; it is shown when it comes back."""
        data = Data(value=json.dumps({"who": self._who, "says": text}).encode())
        self._commands.put(
            Commands(commands=[Command(ref=2, publish=PublishRequest(channel=self._channel, data=data))])
        )

    def hear(self, message: Message) -> None:
        """Show what was said; a device answers."""
        said = json.loads(message.data.value)
        print(f"{said['who']}: {said['says']}", flush=True)
        if self._who == "device" and said == {"who": "operator", "says": "status"}:
            self.say("all is well")

    def type_in(self) -> None:
        """Say what is typed; at its end say nothing more."""
        for line in sys.stdin:
            self.say(line.strip())
        self._commands.put(None)


def main(address: str, device: str, who: str = "device") -> None:
    """Talk until the stream ends."""
    talk = Talk(device, who)
    threading.Thread(target=talk.type_in, daemon=True).start()
    with grpc.insecure_channel(address) as channel:
        for batch in TellwireStub(channel).Connect(talk.commands()):
            for push in batch.pushes:
                if push.WhichOneof("push") == "message":
                    talk.hear(push.message)
                elif push.WhichOneof("push") in ("error", "gap", "closing"):
                    print(push, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])

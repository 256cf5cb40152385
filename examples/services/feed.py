"""A service reads a feed: one question, and then whatever comes (server streaming).

    .venv/bin/python examples/services/feed.py 127.0.0.1:50051 sensors:boiler sensors:pump

Where the stream breaks it goes on behind the last message that it had: nothing is missing, and nothing comes twice.
"""

import sys
import time

import grpc

from tellwire.protocol.proto.tellwire_pb2 import Gap, SubscribeRequest
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub


def main(address: str, channels: list[str]) -> None:
    """Print what comes, for ever."""
    cursor = "earliest"
    while True:
        with grpc.insecure_channel(address) as connection:
            try:
                for batch in TellwireStub(connection).Subscribe(SubscribeRequest(channels=channels, since=cursor)):
                    for push in batch.pushes:
                        kind = push.WhichOneof("push")
                        if kind == "message":
                            print(push.message.channel, push.message.data.value.decode(), flush=True)
                            cursor = push.message.position or cursor  # ephemeral messages have none
                        elif kind in ("connected", "heartbeat"):
                            cursor = getattr(push, kind).cursor
                        elif kind == "gap":
                            print(f"something is missing after {push.gap.from_cursor}", file=sys.stderr)
                            if push.gap.reason == Gap.REASON_EPOCH:
                                cursor = push.gap.to_position
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

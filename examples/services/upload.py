"""A sensor uploads what it has measured: one stream up, one summary down (client streaming).

    .venv/bin/python examples/services/upload.py 127.0.0.1:50051 boiler readings.txt

Each line of the file is one reading. A stream that breaks is begun anew: the ids are those of the first time, so that
what had arrived is not there twice.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from tellwire.protocol.proto.tellwire_pb2 import Data, PublishRequest
from tellwire.protocol.proto.tellwire_pb2_grpc import TellwireStub


def readings(sensor: str, file: Path) -> Iterator[PublishRequest]:
    """Make a message of each line, named by the sensor, the file and the line."""
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            data = Data(value=json.dumps(float(line)).encode())
            yield PublishRequest(channel=f"sensors:{sensor}", data=data, id=f"{file.name}-{number}")


def main(address: str, sensor: str, file: Path) -> None:
    """Upload, until it is done."""
    while True:
        with grpc.insecure_channel(address) as channel:
            try:
                summary = TellwireStub(channel).PublishStream(readings(sensor, file))
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                print("the stream broke; once more", file=sys.stderr)
                time.sleep(1)
                continue
        print(f"{summary.received} readings: {summary.published} new, {summary.duplicates} there already,", end=" ")
        print(f"{summary.failed} refused; the last one is {summary.last_position}")
        return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

"""What a program says that uses a client generated from the description; run beside the generated package.

Prints what the server answered, as the client understood it.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Publish to the server on a port, and read it back."""
    package, port = sys.argv[1:]
    models: Any = import_module(f"{package}.models")
    publish: Any = import_module(f"{package}.api.publishing.publish_messages")
    read: Any = import_module(f"{package}.api.reading.read_messages")
    ready: Any = import_module(f"{package}.api.health.is_ready")
    client = import_module(f"{package}.client").Client(base_url=f"http://127.0.0.1:{port}")
    body = models.PublishBody(channel="generated", data={"text": "hi"}, id="one")
    placed = publish.sync(client=client, body=body)
    again = publish.sync(client=client, body=body)
    many = publish.sync(client=client, body=[models.PublishBody("generated", 2), models.PublishBody("no..pe", 2)])
    refused = publish.sync(client=client, body=models.PublishBody(channel="no channel", data=1))
    page = read.sync(client=client, channel=["generated"], since="earliest", limit=10)
    seen = {
        "ready": ready.sync(client=client).ready,
        "kinds": [type(answer).__name__ for answer in (placed, again, *many, refused, page, *page.messages)],
        "is_same": placed.position == again.position and again.duplicate,
        "codes": [many[1].error.code, refused.code],
        "data": [getattr(message.data, "additional_properties", message.data) for message in page.messages],
        "is_whole": page.gap is None and page.cursor == many[0].position,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()

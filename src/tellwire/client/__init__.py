"""The Python client: reads and publishes over whatever transport works, and never loses its place.

::

    async with connect("http://127.0.0.1:8000") as client:
        async with client.subscribe("news", since="earliest") as news:
            async for message in news:
                print(message.data)

`connect_sync` is the same for programs without an event loop. Nothing of the server is needed or loaded.
"""

from tellwire.client.client import Client
from tellwire.client.connecting import connect
from tellwire.client.failures import Closed, ConnectionLost, OutboxFull, Uncertain
from tellwire.client.feed import Feed
from tellwire.client.messages import (
    Member,
    Message,
    Page,
    PresenceEvent,
    Published,
    Signal,
    State,
    TransportName,
)
from tellwire.client.presence import Presence
from tellwire.client.settings import Settings
from tellwire.client.subscription import Subscription
from tellwire.client.sync import SyncClient, SyncFeed, SyncPresence, SyncSubscription, connect_sync
from tellwire.message import Gap

__all__ = [
    "Client", "Closed", "ConnectionLost", "Feed", "Gap", "Member", "Message", "OutboxFull", "Page", "Presence",
    "PresenceEvent", "Published", "Settings", "Signal", "State", "Subscription", "SyncClient", "SyncFeed",
    "SyncPresence", "SyncSubscription", "TransportName", "Uncertain", "connect", "connect_sync",
]  # fmt: skip

"""An application that says on standard output who has gone; its log is in the file that its first argument names."""

import sys

from starlette.applications import Starlette
from starlette.routing import Mount

from tellwire import ConnectRequest, Disconnected, Grants, Identity, Limits, Tellwire

tellwire = Tellwire(broker=f"sqlite:///{sys.argv[3]}", limits=Limits(node_lease_s=0.9, drain_s=0.1))
app = Starlette(routes=[Mount("/realtime", tellwire.asgi)], lifespan=tellwire.lifespan)


@tellwire.on_connect
def on_connect(request: ConnectRequest) -> Identity:
    return Identity(user=request.query["user"], info=b'{"of":"a life"}', grants=Grants.ALL)


@tellwire.on_disconnect
def on_disconnect(gone: Disconnected) -> None:
    print(gone.user, gone.transport, gone.info["of"], gone.code, gone.reason, sep="|", flush=True)

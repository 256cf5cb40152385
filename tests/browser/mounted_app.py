"""An application of somebody else's, with Tellwire and its page under a prefix."""

from starlette.applications import Starlette
from starlette.routing import Mount

from tellwire import Tellwire

tellwire = Tellwire(token_key="a secret of the tests, at least thirty-two bytes long", page=True)
app = Starlette(routes=[Mount("/inside/realtime", tellwire.asgi)], lifespan=tellwire.lifespan)

"""The porch: routes, pages, a node as the settings describe it, and the server that runs it."""

from tellwire.server.assembly import make_grpc, make_node
from tellwire.server.routes import make_app
from tellwire.server.running import Part, Server, base_url, make_server, run

__all__ = ["Part", "Server", "base_url", "make_app", "make_grpc", "make_node", "make_server", "run"]

"""Which STUN and TURN servers peers may use, and with which credentials: ``[ice]`` of the settings."""

from tellwire.ice.servers import IceServer, IceServers, link_fields
from tellwire.ice.settings import IceSettings

__all__ = ["IceServer", "IceServers", "IceSettings", "link_fields"]

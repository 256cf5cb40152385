"""How much: every bound that is not a namespace's, and what counts towards them.

What goes over a bound gets its documented answer, and is counted under the name of the setting (`LimitHits`).
"""

from __future__ import annotations

from tellwire.limits.addresses import Network, address_key, client_address
from tellwire.limits.bounds import LimitHits, Limits
from tellwire.limits.buckets import Bucket, Buckets
from tellwire.limits.descriptors import raise_descriptor_limit
from tellwire.limits.turnstile import Turnstile, Visit

__all__ = [
    "Bucket",
    "Buckets",
    "LimitHits",
    "Limits",
    "Network",
    "Turnstile",
    "Visit",
    "address_key",
    "client_address",
    "raise_descriptor_limit",
]

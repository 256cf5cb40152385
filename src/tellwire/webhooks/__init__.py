"""The hooks of tellwire.hooks, asked from a backend over HTTP: for applications in any language.

`WebHooks` is the handlers and what they say and understand; `Endpoint` one URL with its connections, its queue and
its `Breaker`; `IdentityCache` what connect was answered; `Outbox` what the backend has yet to be told.
"""

from __future__ import annotations

from tellwire.webhooks.backend import WebHooks
from tellwire.webhooks.settings import WebhookSettings

__all__ = ["WebHooks", "WebhookSettings"]

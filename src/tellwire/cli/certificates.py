"""Which certificates the commands accept, and what they say of one that they do not."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx


class NotAccepted(click.ClickException):
    """TLS with the server failed, and would whenever it is tried again."""


def certificate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which certificates are accepted; the command gets them as `tls`."""

    @click.option("--insecure", is_flag=True, help="Accept any TLS certificate: for trying things out only.")
    @click.option(
        "--ca-file",
        envvar="TELLWIRE_CA_FILE",
        show_envvar=True,
        type=click.Path(exists=True, path_type=Path, dir_okay=False),
        help="PEM file of an authority whose certificates are accepted, beside those that the system trusts.",
    )
    @functools.wraps(command)
    def with_tls(*args: Any, insecure: bool, ca_file: Path | None, **kwargs: Any) -> None:
        command(*args, tls=accepted(ca_file, insecure=insecure), **kwargs)

    return with_tls


def accepted(ca_file: Path | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return which certificates are accepted; raises UsageError for a file without any."""
    own = {name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)}
    try:
        tls = httpx.create_ssl_context()  # those of its own list, or of these variables, as in the Python client
    except OSError as exc:
        raise click.UsageError(f"{' or '.join(sorted(own))}: no certificates can be read there ({exc})") from None
    if not own:
        tls.load_default_certs()
    if insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    elif ca_file is not None:
        try:
            tls.load_verify_locations(ca_file)
        except OSError as exc:  # ssl.SSLError is one
            says = f"--ca-file: there is no certificate in PEM to be read from {ca_file} ({exc})"
            raise click.UsageError(says) from None
    return tls


class Client(httpx.Client):
    """An HTTP client that tells TLS that will never work, NotAccepted, from what may work the next time."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request; raises NotAccepted, httpx.HTTPError."""
        try:
            return super().send(request, **options)
        except httpx.TransportError as exc:
            says = _never(exc, request.url.netloc.decode("ascii"))
            if says is None:
                raise
            raise NotAccepted(says) from None


def _never(exc: BaseException | None, netloc: str) -> str | None:
    """Say why TLS with a server cannot work; None where something else failed, which may pass."""
    while exc is not None:
        if isinstance(exc, ssl.SSLError):
            from tellwire.compare.site import NOT_TLS, tls_failure

            is_lasting = isinstance(exc, ssl.SSLCertVerificationError) or exc.reason in NOT_TLS
            return tls_failure(exc, netloc) if is_lasting else None
        # httpx wraps what httpcore wrapped, whose pool of connections takes the cause away (`from None`).
        exc = exc.__cause__ or exc.__context__
    return None

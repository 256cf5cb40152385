"""The pages, what they are made of, and the JavaScript client: files that everybody may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tellwire.advise import RULES, SHIPPED

CONSOLE = Path(__file__).parents[1] / "console"

PACKED_CLIENT = Path(__file__).parents[1] / "client_js"
CLIENT = PACKED_CLIENT if PACKED_CLIENT.is_dir() else Path(__file__).parents[3] / "clients" / "js" / "src"
"""The JavaScript client: a wheel has a copy of it, a checkout the thing itself."""


_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_DATA_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-cache"}


_MODULE_HEADERS = {
    "content-type": "text/javascript; charset=utf-8",  # whatever this machine takes .js for
    "x-content-type-options": "nosniff",
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
    "cache-control": "no-cache",  # asked for again with its ETag, so that no page has half of an older version
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page at work, of the advisor and the doctor, and of what they load."""

    def page_of(name: str) -> Route:
        async def show(_: Request) -> Response:
            return FileResponse(CONSOLE / f"{name or 'index'}.html", headers=_PAGE_HEADERS)

        return Route(f"/{name}", show)

    def data_of(file: Path) -> Route:
        async def show(_: Request) -> Response:
            return FileResponse(file, media_type="application/json", headers=_DATA_HEADERS)

        return Route(f"/advise/{file.name}", show)

    return [
        *map(page_of, ("", "advise", "doctor")),
        *map(data_of, (RULES, SHIPPED)),
        Mount("/console", StaticFiles(directory=CONSOLE)),
    ]


def client_route() -> BaseRoute:
    """Return the route of the JavaScript client."""
    return Mount("/client", Modules(directory=CLIENT))


class Modules(StaticFiles):
    """ES modules for pages of any origin: they are the same for everybody, and say nothing of who asks."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        response = super().file_response(*args, **settings)
        response.headers.update(_MODULE_HEADERS)
        return response

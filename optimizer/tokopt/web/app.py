"""The application: routes of the JSON API and of the page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tokopt.version import __version__

from .guard import Guard
from .office import Office
from .pages import static_files
from .problems import MEDIA_TYPE, TITLES, Problem, ProblemDocument, one_line
from .routes import router
from .settings import Settings

DESCRIPTION = """What the page asks, for programs: plans, frontiers, comparisons, uploads and downloads.

Records are those of the Python package. Errors are problem documents (RFC 9457) whose `detail` is one line."""
REFUSALS = (401, 403, 404, 408, 413, 421, 422, 500, 503, 504)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application for these settings; its processes start and end with its lifespan."""
    kept = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        office = Office(kept)
        app.state.office = office
        office.workers.begin()
        warming = asyncio.create_task(office.warm_up()) if kept.warm else None
        try:
            yield
        finally:
            if warming is not None:
                warming.cancel()
            office.close()

    app = FastAPI(
        title="tokopt",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={status: _refusal(status) for status in REFUSALS},
    )
    app.state.settings = kept
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.include_router(router)
    _add_pages(app)
    app.add_middleware(Guard, settings=kept)
    return app


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"model": ProblemDocument, "description": TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}


def _add_pages(app: FastAPI) -> None:
    """Add the page, the list of operations, and the files that they consist of."""
    for name, path in (("index.html", "/"), ("api.html", "/api")):
        app.add_api_route(path, _shown(name), methods=["GET", "HEAD"], include_in_schema=False)

    async def static(name: str) -> Response:
        return _file(name)

    app.add_api_route("/static/{name}", static, methods=["GET", "HEAD"], include_in_schema=False)


def _shown(name: str) -> Any:
    async def page() -> Response:
        return _file(name)

    return page


def _file(name: str) -> Response:
    if name not in static_files():
        raise Problem(404, "there is no such page")
    content, kind = static_files()[name]
    kept = "max-age=86400" if name.endswith(".svg") else "no-cache"
    return Response(content, media_type=kind, headers={"Cache-Control": kept})


# --- what goes wrong ---


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return Response(error.body(), error.status, headers=error.headers, media_type=MEDIA_TYPE)


async def _invalid(_: Request, error: Exception) -> Response:
    """Answer what does not fit the records: the first fault, in one line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [part for part in first["loc"] if part not in ("body", "query", "path")]
    field = next((part for part in where if isinstance(part, str) and part not in ("first", "second")), None)
    name = ".".join(str(part) for part in where) or "body"
    said = re.sub(r"^Value error, ", "", first["msg"])
    given = first.get("input")
    shown = f" (given: {json.dumps(given)[:80]})" if isinstance(given, str | int | float) else ""
    status = 422
    return await _problem(_, Problem(status, one_line(f"{name}: {said}{shown}"), field=field))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await _problem(_, Problem(error.status_code, str(error.detail)))

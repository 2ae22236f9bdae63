"""`/docs`: OpenAPI of every endpoint, as JSON and as a page that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from gateway.docs_page import POLICY, render
from gateway.problems import ErrorBody
from gateway.shapes import ChatCompletion, ChatCompletionChunk

VERSION = "1"
DESCRIPTION = (
    "OpenAI-compatible chat with personalities, sessions and tools. Keys travel as 'Authorization: Bearer <key>'. "
    "Every answer carries 'x-request-id'; everything that is not a success has the body 'ErrorBody'."
)
READS = "reads"
"""In a handler's options: the type of its JSON body. Bodies are read by `gateway.body`, which the framework does not
know of."""
ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("/v1/chat/completions", "POST"): {"application/json": ChatCompletion, "text/event-stream": ChatCompletionChunk},
    ("/v1/turns/{turn_id}/stream", "GET"): {"text/event-stream": ChatCompletionChunk},
}
"""What handlers answer that send the bytes themselves, by media type; of a stream, what each event's data is."""
_REF = "#/components/schemas/{name}"


def routes(handlers: list[ControllerRouterHandler]) -> list[HTTPRouteHandler]:
    """`GET /docs` and `GET /docs/openapi.json` of these handlers; made when first asked for."""
    made: Callable[[], dict[str, Any]] = lru_cache(maxsize=1)(lambda: document(handlers))

    @get("/docs", include_in_schema=False)
    async def page() -> Response[str]:
        """The documentation, for people."""
        return Response(render(made()), media_type="text/html", headers={"content-security-policy": POLICY})

    @get("/docs/openapi.json", include_in_schema=False)
    async def as_json() -> dict[str, Any]:
        """The documentation, for programs."""
        return made()

    return [page, as_json]


def document(handlers: list[ControllerRouterHandler]) -> dict[str, Any]:
    """The OpenAPI document: the framework's, with the bodies that we read ourselves and the one error body."""
    key = SecurityScheme(type="http", scheme="bearer", description="An API key.")
    config = OpenAPIConfig(
        title="CozyEngine",
        version=VERSION,
        description=DESCRIPTION,
        use_handler_docstrings=True,
        components=Components(security_schemes={"bearer": key}),
    )
    app = Litestar(handlers, openapi_config=config, logging_config=None)
    found: dict[str, Any] = app.openapi_schema.to_schema()
    schemas = found["components"].setdefault("schemas", {})
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                _complete(found["paths"], route.path_format, handler, schemas)
    return found


def _complete(paths: dict[str, Any], path: str, handler: HTTPRouteHandler, schemas: dict[str, Any]) -> None:
    for method in handler.http_methods:
        operation = paths.get(path, {}).get(method.lower())
        if operation is None:
            continue
        if (kind := handler.opt.get(READS)) is not None:
            operation["requestBody"] = {"required": True, **_json(_schema(kind, schemas))}
        responses = operation["responses"]
        responses.pop("400", None)  # the framework's own body, which is never sent
        responses["default"] = {"description": "What went wrong", **_json(_schema(ErrorBody, schemas))}
        if (answers := ANSWERS.get((path, method))) is not None:
            content = {media: {"schema": _schema(kind, schemas)} for media, kind in answers.items()}
            responses["200"] = {"description": "The answer", "content": content}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The reference to a type's schema; the schema and those it needs join the document's."""
    (schema,), parts = msgspec.json.schema_components((kind,), ref_template=_REF)
    for name, part in parts.items():
        schemas.setdefault(name, part)
    return schema

"""The HTTP app: which handler answers which path, and behind which guard."""

from __future__ import annotations

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler

from gateway import chat, docs, health, models, page, personalities, problems, sessions, turn_stream, turns
from gateway.edge import Edge
from gateway.guards import known_caller
from gateway.services import Services, running
from ops.runtime.settings import Api

EXPOSED = ["x-request-id", "location", "retry-after", "x-should-retry"]
"""Headers of ours that a page of another origin may read."""


def create(services: Services) -> Edge:
    """The whole app, ready for an ASGI server. Its lifespan opens and closes the services."""
    config = services.config
    public = [api(), *operation(services)]
    if config.api.docs_enabled:
        public += docs.routes(list(public))
    if config.api.page_enabled:
        public.append(page.page_route(development=config.security.dev_keys))
    return Edge(
        Litestar(
            public,
            lifespan=[running],
            exception_handlers={Exception: problems.handle},
            request_max_body_size=config.api.max_body_bytes,
            cors_config=cors(config.api),
            openapi_config=None,
            logging_config=None,
            debug=False,
            state=State(
                {"services": services, "draining": services.draining, "error_details": config.api.error_details}
            ),
        )
    )


def api() -> Router:
    """Everything that needs a key."""
    return Router("/v1", guards=[known_caller], security=[{"bearer": []}], route_handlers=[
        Router("/", tags=["chat"], route_handlers=[chat.chat_completions, models.list_models, models.get_model]),
        Router("/", tags=["personalities"], route_handlers=[personalities.list_personalities]),
        Router("/", tags=["sessions"], route_handlers=[
            sessions.create_session, sessions.list_sessions, sessions.get_session, sessions.change_session,
            sessions.delete_session, sessions.list_messages,
        ]),
        Router("/", tags=["turns"], route_handlers=[turns.get_turn, turns.cancel_turn, turn_stream.stream_turn]),
    ])  # fmt: skip


def operation(services: Services) -> list[ControllerRouterHandler]:
    """What whoever runs the gateway asks it, without a key."""
    probes: list[HTTPRouteHandler] = [health.livez, health.readyz]
    return [*probes, health.health_route(services)] if services.config.api.health_enabled else [*probes]


def cors(api_settings: Api) -> CORSConfig | None:
    """Pages of other origins are locked out unless the settings name them."""
    if not api_settings.cors_origins:
        return None
    return CORSConfig(allow_origins=list(api_settings.cors_origins), expose_headers=EXPOSED, max_age=600)

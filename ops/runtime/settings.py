"""Every setting there is: frozen, with its default, unit and meaning. `ops/config/*.yaml` shows the same to people."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^/\s?#]+")]
Environment = Literal["development", "production", "test"]
Resume = Literal["none", "prefill", "continue"]


class ConfigError(Exception):
    """This configuration is not one to start with. Each problem is one line that names file (or variable) and field."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class App(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this installation is."""

    environment: Environment = "production"
    """`development`, `test` or `production`; several defaults depend on it. Default: APP_ENV."""
    drain_seconds: Seconds = 120.0
    """Seconds a worker told to stop has to finish the turns in its hands. In development and test: 7."""
    instance: str = ""
    """A name for this machine or pod, written in every log line; empty leaves it out."""


class Api(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP edge."""

    host: str = "127.0.0.1"
    """Address the gateway listens on; `0.0.0.0` for every one."""
    port: Port = 8000
    """Port the gateway listens on; 0 takes a free one. Default: PORT."""
    reuse_port: bool = False
    """Whether several gateways of one machine may listen on this port together (SO_REUSEPORT), each with its part of
    the connections, so that one can be restarted while the others serve."""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=8_000_000)] = 7_000_000
    """Largest request body; a larger one is answered 413. The bus carries 8 MB at most."""
    verdict_budget: Seconds = 10.0
    """Seconds a chat waits to be accepted before it is answered 503."""
    header_wait: Seconds = 2.0
    """Seconds a stream holds its headers back, so that an early failure gets a status of its own."""
    heartbeat: Seconds = 15.0
    """Seconds of silence on a stream after which a heartbeat is sent; proxies cut silent ones at 60."""
    records_timeout: Annotated[float, Meta(gt=0, le=3)] = 2.5
    """Seconds the records worker has to answer before the caller is answered 503; at most 3."""
    docs_enabled: bool = True
    """Whether /docs is served."""
    health_enabled: bool = True
    """Whether /health is served."""
    page_enabled: bool = False
    """Whether the chat page is served at /. In development: true."""
    error_details: bool = False
    """Whether an error's `details` are told to the caller. In development and test: true."""
    stream_grace: Seconds = 120.0
    """Seconds open streams have to end when the gateway is told to stop. In development and test: 7."""
    caller_cache_ttl: Seconds = 30.0
    """Seconds a caller once looked up is served without asking again."""
    caller_stale_ttl: Seconds = 300.0
    """Seconds a known caller is still served while the records worker is away."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser, for example ["https://chat.example.com"]."""


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model server."""

    kind: Literal["openai"] = "openai"
    """The protocol it speaks; `openai` covers every OpenAI-compatible server."""
    base_url: HttpUrl
    """Where its API begins, `/v1` included."""
    api_key: str = ""
    """Its key, from the environment only: ${NAME}, or ${NAME:-} where it may be missing."""
    models: tuple[Annotated[str, Meta(min_length=1)], ...] = ("*",)
    """The models that may be used: names, or patterns with `*`. Names without a pattern are listed by /v1/models."""
    max_connections: Count = 1024
    """Most connections one process opens to it; one open reply takes one."""
    resume: Resume = "none"
    """How a reply goes on after its worker died: `prefill` where the server continues an assistant prefix (vLLM,
    llama.cpp, Mistral, DeepSeek), `continue` to ask the model to go on from its own text, `none` to end it honestly."""


class ModelTraits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sets a model apart from the others of its provider."""

    resume: Resume | None = None
    """As the provider's `resume`, for this model; null leaves the provider's."""
    supports_tools: bool = True
    """Whether it can be given tools."""
    supports_vision: bool = True
    """Whether it can be given images."""


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How replies are generated."""

    first_token_timeout: Seconds = 60.0
    """Seconds the model has for its first token."""
    idle_timeout: Seconds = 15.0
    """Seconds the model may fall silent within a reply."""
    total_timeout: Seconds = 600.0
    """Seconds one reply may take in all."""
    retries: Annotated[int, Meta(ge=0, le=10)] = 3
    """How often a call that failed before its first token is made again."""
    retry_budget: Seconds = 20.0
    """Seconds all these attempts may take together, waits included."""
    max_parallel_turns: Count = 1024
    """Turns one generation process works on at a time."""
    merge_window_max: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Most seconds that words wait, under load, to travel together; the first never waits. 0: never merge."""
    listener_interval: Seconds = 10.0
    """Seconds between two looks whether anybody still listens to a reply."""
    listener_grace: Seconds = 30.0
    """Seconds after which a reply that nobody listens to is stopped and kept; `cozy.on_disconnect` overrides."""


class Engines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model servers, which of their models may be used, and how."""

    providers: dict[str, Provider] = {}
    """Model servers by name. With none: `openai` if OPENAI_API_KEY or OPENAI_BASE_URL is set, else `scripted` if
    SCRIPTED_URL is."""
    default_provider: str = "auto"
    """The provider of the default model; `auto` for the first."""
    default_model: str = "auto"
    """The model of who names none. `auto`: OPENAI_MODEL, else gpt-5-mini at OpenAI itself, else the first name among
    the provider's `models`, else the first model its server lists."""
    model_traits: dict[str, ModelTraits] = {}
    """What sets single models apart, by name or pattern; the first that fits counts."""
    generation: Generation = Generation()
    """How replies are generated."""


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reply is generated from."""

    history_messages: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Most messages of the session that are read back."""
    history_tokens: Annotated[int, Meta(ge=100, le=10_000_000)] = 24_000
    """Most tokens they may take; the oldest are left out first."""


class Tools(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tools of ours that a model may call."""

    max_rounds: Annotated[int, Meta(ge=1, le=100)] = 10
    """Rounds of tool calls within one turn; after the last the model must answer without tools."""
    call_timeout: Seconds = 30.0
    """Seconds one call may take."""


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PostgreSQL and NATS, and how the stages work on them."""

    database_url: str = "postgresql://127.0.0.1:5432/cozy"
    """Where PostgreSQL is. Default: DATABASE_URL. A password comes from the environment: ${NAME}."""
    nats_url: str = "nats://127.0.0.1:4222"
    """Where NATS is; several servers separated by commas. Default: NATS_URL."""
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Most database connections of one process."""
    statement_timeout: Seconds = 5.0
    """Seconds one statement may take."""
    lease: Seconds = 10.0
    """Seconds after which the turns of a process that fell silent may be taken over. In development and test: 3."""
    shards: Annotated[int, Meta(ge=1, le=256)] = 1
    """Into how many parts the turns are split on the bus; the same for every process."""
    nats_replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """Servers that hold a copy of each stream; 3 on a cluster of three or more, 1 on a server alone."""
    poison_tries: Annotated[int, Meta(ge=1, le=100)] = 6
    """How often a message may fail, dependencies that were away not counted, before it is set aside."""
    sweep_interval: Seconds = 2.0
    """Seconds between two looks for turns that stand still."""
    sweep_after: Seconds = 15.0
    """Seconds after which a turn stands still and is sent on again. In development and test: 8."""


class Observability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the processes are watched."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines of ours that are logged; libraries log from `warning` on."""
    log_content: bool = False
    """Whether what people said may be logged; even then without keys, e-mail addresses and phone numbers."""
    health_host: str = "127.0.0.1"
    """Address of /livez, /readyz and /metrics of every process."""
    health_port: Port = 0
    """Port of these; 0 takes a free one. Default: HEALTH_PORT."""


class Security(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may come in."""

    dev_keys: bool = False
    """Whether `sk-cozy-dev` and `sk-cozy-admin` are valid keys; only development may. In development: true."""
    concurrent_turns: Count | None = None
    """Most turns of one user that are worked on at once; further ones wait for these to end. null: no limit."""


NAMESPACES: dict[str, type[msgspec.Struct]] = {
    "app": App, "api": Api, "engines": Engines, "context": Context,
    "tools": Tools, "storage": Storage, "observability": Observability, "security": Security,
}  # fmt: skip
"""One YAML file each, and the second word of `COZY_<NAMESPACE>__<KEY>`."""

_AT_THE_DESK: dict[str, dict[str, Any]] = {
    "app": {"drain_seconds": 7.0},
    "api": {"error_details": True, "stream_grace": 7.0},
    "storage": {"lease": 3.0, "sweep_after": 8.0},
}
DEFAULTS_OF: dict[str, dict[str, dict[str, Any]]] = {
    "production": {},
    "test": _AT_THE_DESK,
    "development": {
        **_AT_THE_DESK,
        "api": {**_AT_THE_DESK["api"], "page_enabled": True},
        "security": {"dev_keys": True},
    },
}
"""Where an environment's defaults differ from those above."""

PLAIN_VARIABLES: dict[str, tuple[str, str]] = {
    "APP_ENV": ("app", "environment"),
    "PORT": ("api", "port"),
    "DATABASE_URL": ("storage", "database_url"),
    "NATS_URL": ("storage", "nats_url"),
    "HEALTH_PORT": ("observability", "health_port"),
}
"""Variables without our prefix that set a setting; its `COZY_` form wins over them."""

"""`GET /v1/models`: personalities, which chat front ends pick like models, then the providers' own models."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.params import FromPath

from gateway.services import Asked, services_of
from ops.runtime.config import Config
from schemas.faults import ModelNotFound

OURS = "cozy"
PREFIX = f"{OURS}/"
CREATED = 1_767_225_600
"""Unix seconds. OpenAI's shape wants a date; ours have none, and it must be the same on every gateway."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a chat request may name."""

    id: str
    object: str = "model"
    created: int = CREATED
    owned_by: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model there is: this list has no pages, as OpenAI's has none."""

    object: str = "list"
    data: list[Model]


def all_models(config: Config) -> list[Model]:
    """`cozy/default`, the other personalities, the models of the allow-list; no name twice."""
    owners = {PREFIX + person.id: OURS for person in config.personalities.all()}
    catalogue = config.catalogue  # its providers' keys need not be known here
    for name in catalogue.listed() if catalogue else ():
        choice = catalogue.resolve(name) if catalogue else None
        if choice is not None:
            owners.setdefault(name, choice.provider)
    return [Model(id=name, owned_by=owner) for name, owner in owners.items()]


def find_model(config: Config, name: str) -> Model:
    """One model, also one that a pattern of the allow-list lets in without listing it. Raises ModelNotFound."""
    for model in all_models(config):
        if model.id == name:
            return model
    choice = config.catalogue.resolve(name) if config.catalogue and not name.startswith(PREFIX) else None
    if choice is None:
        raise ModelNotFound()
    return Model(id=name, owned_by=choice.provider)


@get("/models", summary="List the models")
async def list_models(request: Asked) -> ModelList:
    """Personalities as `cozy/<id>`, `cozy/default` first, then the providers' models."""
    return ModelList(data=all_models(services_of(request).config))


@get("/models/{model_id:path}", summary="One model")
async def get_model(request: Asked, model_id: FromPath[str]) -> Model:
    """A personality or a model, by its name."""
    return find_model(services_of(request).config, model_id.removeprefix("/"))

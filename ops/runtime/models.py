"""Which model of which provider answers: the allow-list of `engines.yaml`, or the provider the environment names."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import msgspec

from ops.runtime.settings import Engines, ModelTraits, Provider, Resume
from ops.runtime.yaml_files import Place, Tree
from schemas.context import ModelChoice

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_HOST = "api.openai.com"
OPENAI_DEFAULT = "gpt-5-mini"
SCRIPTED_MODELS = ("scripted", "scripted-small")
AUTO = "auto"
"""As a model: the first that the provider's server lists and the allow-list holds. As a setting: chosen for you."""
DEFAULT = "default"
"""What a personality or request calls the default model."""
PERSONALITIES = "cozy/"
NO_PROVIDER = (
    "engines.yaml: providers: no model server is configured; set OPENAI_API_KEY (OpenAI), or OPENAI_BASE_URL "
    "(Ollama, LM Studio, vLLM or another OpenAI-compatible server), or SCRIPTED_URL (the stand-in), or add one here"
)


class ModelCatalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The models that may be used."""

    providers: dict[str, Provider]
    default: ModelChoice
    model_traits: dict[str, ModelTraits] = {}

    def resolve(self, name: str) -> ModelChoice | None:
        """The provider and model that a name means, or None where the allow-list has no such model.

        `default` is the default model. `provider/model` chooses the provider, which counts first where several are
        configured; a single server's own names may hold slashes. Else the default provider is asked first.
        `cozy/...` is a personality and never a model.
        """
        if name == DEFAULT:
            return self.default
        if name.startswith(PERSONALITIES):
            return None
        explicit, plain = self._explicit(name), self._plain(name)
        return explicit or plain if len(self.providers) > 1 else plain or explicit

    def allows(self, provider: str, model: str) -> bool:
        """Whether the provider's allow-list holds this model. For what `auto` may become."""
        found = self.providers.get(provider)
        return found is not None and any(fnmatchcase(model, pattern) for pattern in found.models)

    def listed(self) -> list[str]:
        """The names to list: the default model, then every name of the allow-lists that is not a pattern."""
        names = [self.default.model] if self.default.model != AUTO else []
        names += [model for provider in self._in_order() for model in _names(self.providers[provider])]
        return list(dict.fromkeys(names))

    def traits(self, choice: ModelChoice) -> ModelTraits:
        """What the model can do, with `resume` filled in from its provider where it has none of its own."""
        found = next((traits for name, traits in self.model_traits.items() if fnmatchcase(choice.model, name)), None)
        resume: Resume = self.providers[choice.provider].resume
        if found is None:
            return ModelTraits(resume=resume)
        return found if found.resume else msgspec.structs.replace(found, resume=resume)

    def _in_order(self) -> list[str]:
        return sorted(self.providers, key=lambda name: name != self.default.provider)

    def _explicit(self, name: str) -> ModelChoice | None:
        provider, _, model = name.partition("/")
        return ModelChoice(provider=provider, model=model) if model and self.allows(provider, model) else None

    def _plain(self, name: str) -> ModelChoice | None:
        found = next((provider for provider in self._in_order() if self.allows(provider, name)), None)
        return ModelChoice(provider=found, model=name) if found else None


def provider_of(environ: Mapping[str, str]) -> tuple[Tree, dict[Place, str]]:
    """The provider that the environment names, as settings, and which variable says what of it.

    OpenAI or a server like it, else the scripted stand-in, else none.
    """
    key, address, scripted = (environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SCRIPTED_URL"))
    if key or address:
        provider: Tree = {"base_url": address or OPENAI_URL, "api_key": key or ""}
        return {"openai": provider}, {
            ("openai", "base_url"): "OPENAI_BASE_URL",
            ("openai", "api_key"): "OPENAI_API_KEY",
        }
    if scripted:
        provider = {
            "base_url": f"{scripted.rstrip('/')}/v1",
            "api_key": "scripted",
            "models": list(SCRIPTED_MODELS),
            "resume": "prefill",
        }
        return {"scripted": provider}, {("scripted", "base_url"): "SCRIPTED_URL"}
    return {}, {}


def catalogue_from(engines: Engines, openai_model: str | None) -> ModelCatalogue:
    """The catalogue of at least one provider, with its default chosen; `config` checks whether it is one to start with.

    `openai_model` is the default of the provider `openai` where `default_model` is `auto`.
    """
    first = next(iter(engines.providers)) if engines.default_provider == AUTO else engines.default_provider
    catalogue = ModelCatalogue(
        providers=engines.providers,
        default=ModelChoice(provider=first, model=AUTO),
        model_traits=engines.model_traits,
    )
    default = ModelChoice(provider=first, model=engines.default_model)
    if engines.default_model == AUTO and first in engines.providers:
        default = ModelChoice(provider=first, model=_default_model(first, engines.providers[first], openai_model))
    elif engines.default_provider == AUTO:
        default = catalogue.resolve(engines.default_model) or default
    return msgspec.structs.replace(catalogue, default=default)


def _default_model(name: str, provider: Provider, openai_model: str | None) -> str:
    if name == "openai" and openai_model:
        return openai_model
    if is_openai(provider) and any(fnmatchcase(OPENAI_DEFAULT, pattern) for pattern in provider.models):
        return OPENAI_DEFAULT
    return next(iter(_names(provider)), AUTO)


def is_openai(provider: Provider) -> bool:
    """Whether this is OpenAI itself, which answers nobody without a key."""
    return urlsplit(provider.base_url).hostname == OPENAI_HOST


def _names(provider: Provider) -> list[str]:
    return [model for model in provider.models if not any(sign in model for sign in "*?[")]

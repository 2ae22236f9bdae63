"""What must fit together in a configuration whose single fields are right. Checks answer with lines for ConfigError."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ops.runtime.models import AUTO, ModelCatalogue, is_openai
from ops.runtime.personalities import PersonalitySet
from ops.runtime.yaml_files import Place

NameOf = Callable[[Place], str]
"""What a place is called where it was set: `engines.yaml: default_model`, or `COZY_ENGINES__DEFAULT_MODEL`."""

BELOW: tuple[tuple[str, str, str, str], ...] = (
    ("engines", "generation.first_token_timeout", "generation.total_timeout", "no reply could begin and end"),
    ("storage", "lease", "sweep_after", "turns at work would be sent on again"),
    ("api", "caller_cache_ttl", "caller_stale_ttl", "a known caller would be refused before it is asked for again"),
)
"""Namespace, the setting that must be the smaller, the one it must stay below, and what happens otherwise."""


def across_fields(sections: Mapping[str, Any], names: Mapping[str, NameOf]) -> list[str]:
    """Times that contradict each other, and what an environment must not have."""
    return [*_contradictions(sections, names), *_development_only(sections, names)]


def _contradictions(sections: Mapping[str, Any], names: Mapping[str, NameOf]) -> Iterator[str]:
    for space, smaller, larger, otherwise in BELOW:
        low, high = _value(sections[space], smaller), _value(sections[space], larger)
        if low >= high:
            name = names[space](tuple(smaller.split(".")))
            yield f"{name}: {low:g} s is not below {larger} ({high:g} s): {otherwise}"


def _value(section: Any, path: str) -> Any:
    for key in path.split("."):
        section = getattr(section, key)
    return section


def _development_only(sections: Mapping[str, Any], names: Mapping[str, NameOf]) -> Iterator[str]:
    if sections["security"].dev_keys and sections["app"].environment != "development":
        yield f"{names['security'](('dev_keys',))}: only development has keys that everybody knows"


def of_engines(catalogue: ModelCatalogue, name_of: NameOf) -> list[str]:
    """A default that names no provider, or no model of its provider's allow-list; provider names that cannot work."""
    problems = [
        f"{name_of(('providers', name))}: a provider's name has no slash and is not cozy"
        for name in catalogue.providers
        if "/" in name or name in ("cozy", "")
    ]
    provider, model = catalogue.default.provider, catalogue.default.model
    if provider not in catalogue.providers:
        known = ", ".join(catalogue.providers)
        problems.append(f"{name_of(('default_provider',))}: there is no provider {provider}; there are: {known}")
    elif model != AUTO and not catalogue.allows(provider, model):
        problems.append(f"{name_of(('default_model',))}: {model} is not among the models of provider {provider}")
    return problems


def of_personalities(people: PersonalitySet, catalogue: ModelCatalogue) -> list[str]:
    """Personalities whose model no provider has. Also for a set that is read again while the process runs."""
    return [
        f"personalities/{each.id}.yaml: model.name: no provider's models in engines.yaml include {each.model.name}"
        for each in people.all()
        if catalogue.resolve(each.model.name) is None
    ]


def of_keys(catalogue: ModelCatalogue, people: PersonalitySet, name_of: NameOf) -> list[str]:
    """Providers that are used, by default or by a personality, and cannot answer without the key that is missing.

    For a catalogue without other problems.
    """
    choices = [catalogue.default, *filter(None, (catalogue.resolve(each.model.name) for each in people.all()))]
    used = dict.fromkeys(choice.provider for choice in choices)
    return [
        f"{name_of(('providers', name, 'api_key'))}: missing; set OPENAI_API_KEY, OpenAI answers nobody without a key"
        for name in used
        if is_openai(catalogue.providers[name]) and not catalogue.providers[name].api_key
    ]

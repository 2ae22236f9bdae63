"""A value that a JSON schema accepts, made without chance."""

import math
from collections.abc import Mapping
from typing import Any

_DEEP = 6
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "scripted@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


def instance_of(schema: Mapping[str, Any], *, word: str = "scripted", sparse: bool = False) -> Any:
    """A value valid under `schema`; strings begin with `word`; `sparse` leaves out what is not required.

    Understands type, const, enum, default, $ref, anyOf, oneOf, allOf, properties, required, items, prefixItems and
    the limits of numbers, strings and arrays. `pattern`, `not` and conditions are not understood.
    """
    return _Maker(schema, word, sparse).make(schema, "value", 0)


class _Maker:
    def __init__(self, root: Mapping[str, Any], word: str, sparse: bool) -> None:
        self._root, self._word, self._sparse = root, word, sparse

    def make(self, schema: Any, name: str, depth: int) -> Any:
        schema = self._resolved(schema)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.make(self._pick(schema[key], depth), name, depth + 1)
        return self._typed(schema, name, depth)

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """The schema with its references followed and its allOf merged."""
        found = dict(schema) if isinstance(schema, Mapping) else {}
        for _ in range(_DEEP):
            if "$ref" not in found:
                break
            target = self._target(str(found.pop("$ref")))
            found = {**target, **found}
        for extra in found.pop("allOf", ()):
            found = _merged(found, self._resolved(extra))
        return found

    def _target(self, reference: str) -> dict[str, Any]:
        here: Any = self._root
        for step in reference.lstrip("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            here = here.get(step, {}) if isinstance(here, Mapping) else {}
        return dict(here) if isinstance(here, Mapping) else {}

    def _pick(self, options: list[Any], depth: int) -> Any:
        """The first option that says something; deep inside, null where that ends it."""
        resolved = [self._resolved(option) for option in options]
        nulls = [option for option in resolved if option.get("type") == "null"]
        if depth >= _DEEP and nulls:
            return nulls[0]
        return next((option for option in resolved if option.get("type") != "null"), resolved[0])

    def _typed(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            ends = depth >= _DEEP and "null" in kind
            kind = "null" if ends else next((one for one in kind if one != "null"), "null")
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number":
                return _number(schema, kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
        return self._string(schema, name)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        properties = dict(schema.get("properties", {}))
        full = not self._sparse and depth < _DEEP
        made = {
            name: self.make(inner, name, depth + 1) for name, inner in properties.items() if full or name in required
        }
        for name in sorted(required - properties.keys()):
            made[name] = self.make(schema.get("additionalProperties"), name, depth + 1)
        return made

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        first = [self.make(inner, name, depth + 1) for inner in schema.get("prefixItems", ())]
        least = schema.get("minItems", 0)
        wanted = least if depth >= _DEEP else max(least, min(1, schema.get("maxItems", 1)))
        more = range(len(first), wanted) if schema.get("items") is not False else ()
        return first + [self.make(schema.get("items"), name, depth + 1) for _ in more]

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = f"{self._word} {name}".ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = {**one, **other}
    merged["properties"] = {**one.get("properties", {}), **other.get("properties", {})}
    merged["required"] = [*one.get("required", ()), *other.get("required", ())]
    return {key: value for key, value in merged.items() if value or key not in ("properties", "required")}


def _number(schema: dict[str, Any], whole: bool) -> int | float:
    """The smallest number allowed from 1 on, or else the largest below it."""
    step = schema.get("multipleOf") or (1 if whole else None)
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    grid = step or min(1.0, (high - low) / 4 if math.isfinite(high - low) else 1.0) or 1.0
    value = min(max(1, low), high)
    if step:
        value = math.ceil(value / grid) * grid
        if value > high:
            value = math.floor(high / grid) * grid
    if value == schema.get("exclusiveMinimum"):
        value += grid
    if value == schema.get("exclusiveMaximum"):
        value -= grid
    return int(value) if whole else value

"""The documentation as one HTML page: no script, nothing loaded, every text escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem }
h2 { margin-top: 2.5rem; text-transform: capitalize }
section { border: 1px solid var(--line); border-radius: .5rem; padding: .25rem 1rem; margin: .75rem 0 }
code, pre { font: 14px/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { white-space: pre-wrap; max-height: 30rem; overflow: auto }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
.method { font-weight: 700; text-transform: uppercase; margin-right: .5rem }
"""
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page."""


def render(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML: endpoints by tag, then the schemas they speak of."""
    info = document["info"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} API</h1><p>{escape(info.get('description', ''))}</p>",
            '<p>For programs: <a href="/docs/openapi.json">openapi.json</a></p>',
            *_by_tag(document["paths"]),
            "<h2>schemas</h2>",
            *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
            "</body></html>",
        )
    )


def _by_tag(paths: dict[str, Any]) -> Iterator[str]:
    tags: dict[str, list[str]] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            tags.setdefault(tag, []).append(_operation(method, path, operation))
    for tag, sections in tags.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from sections


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    key = "" if operation.get("security") else " <small>(no key needed)</small>"
    summary, description = (escape(operation.get(name) or "") for name in ("summary", "description"))
    return (
        f'<section><h3><span class="method">{escape(method)}</span><code>{escape(path)}</code>{key}</h3>'
        f"<p><strong>{summary}.</strong> {description}</p>"
        f"{_parameters(operation.get('parameters') or [])}{_body(operation)}{_responses(operation)}</section>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['in'])}</td>"
        f"<td>{_named(each['schema'])}</td><td>{escape(each.get('description') or '')}</td></tr>"
        for each in parameters
    )
    return f"<table><tr><th>Parameter<th>In<th>Type<th></tr>{rows}</table>" if rows else ""


def _body(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(f"<p>Reads {escape(kind)}: {_named(each.get('schema', {}))}</p>" for kind, each in content.items())


def _responses(operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(kind)}</td><td>{_named(each.get('schema', {}))}</td></tr>"
        for status, response in operation["responses"].items()
        for kind, each in (response.get("content") or {"": {}}).items()
    )
    return f"<table><tr><th>Answers<th>As<th></tr>{rows}</table>"


def _named(schema: dict[str, Any]) -> str:
    """A link to the schema's definition, or the schema itself where it has no name."""
    if name := str(schema.get("$ref", "")).rpartition("/")[2]:
        return f'<a href="#{escape(name)}"><code>{escape(name)}</code></a>'
    return f"<code>{escape(json.dumps(schema))}</code>" if schema else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=1))
    title = f"<summary><code>{escape(name)}</code></summary>"
    return f'<section id="{escape(name)}"><details>{title}<pre>{text}</pre></details></section>'

"""The documentation: every endpoint, its body and its errors, valid OpenAPI, and nothing loaded from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from litestar.types import ControllerRouterHandler

from gateway import app, docs
from gateway.docs_page import render
from tests.gateway.conftest import Running

ENDPOINTS = {
    "post /v1/chat/completions", "get /v1/models", "get /v1/models/{model_id}", "get /v1/personalities",
    "post /v1/chat/sessions", "get /v1/chat/sessions", "get /v1/chat/sessions/{session_id}",
    "patch /v1/chat/sessions/{session_id}", "delete /v1/chat/sessions/{session_id}",
    "get /v1/chat/sessions/{session_id}/messages", "get /v1/turns/{turn_id}", "get /v1/turns/{turn_id}/stream",
    "post /v1/turns/{turn_id}/cancel", "get /health",
}  # fmt: skip


@pytest.fixture(scope="module")
async def document(gateway: Running) -> dict[str, Any]:
    status, _, body = await gateway.call("GET", "/docs/openapi.json", headers={})
    assert status == 200
    found: dict[str, Any] = body
    return found


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {f"{method} {path}": one for path, item in document["paths"].items() for method, one in item.items()}


def test_every_endpoint_is_documented(document: dict[str, Any]) -> None:
    assert operations(document).keys() >= ENDPOINTS


def test_every_endpoint_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name
        failing = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert failing == {"$ref": "#/components/schemas/ErrorBody"}, name
        assert "400" not in operation["responses"], name


def test_only_what_is_public_needs_no_key(document: dict[str, Any]) -> None:
    public = [name for name, operation in operations(document).items() if not operation.get("security")]
    assert public == ["get /health"]


def test_a_chats_body_is_documented_to_its_last_parameter(document: dict[str, Any]) -> None:
    body = operations(document)["post /v1/chat/completions"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatRequest"}
    chat = document["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["model", "messages"]
    assert chat["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
    assert "personality_id" in document["components"]["schemas"]["CozyOptions"]["properties"]


def test_a_chats_answer_is_documented_whole_and_streamed(document: dict[str, Any]) -> None:
    content = operations(document)["post /v1/chat/completions"]["responses"]["200"]["content"]
    assert {media: answer["schema"]["$ref"].rpartition("/")[2] for media, answer in content.items()} == {
        "application/json": "ChatCompletion",
        "text/event-stream": "ChatCompletionChunk",
    }


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document)))
    assert references
    assert references <= document["components"]["schemas"].keys()


async def test_the_page_for_people_shows_every_endpoint_and_loads_nothing(
    gateway: Running, document: dict[str, Any]
) -> None:
    status, headers, html = await gateway.call("GET", "/docs", headers={})
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    for path in document["paths"]:
        assert f"<code>{path}</code>" in html
    assert not re.search(r"(?:src|href)=\"(?!/docs/|#)", html)


def test_a_text_in_the_documentation_cannot_become_markup() -> None:
    mischief = "<script>alert(1)</script>"
    operation = {"summary": mischief, "description": mischief, "responses": {}, "tags": [mischief]}
    html = render(
        {
            "info": {"title": mischief, "description": mischief},
            "paths": {f"/{mischief}": {"get": operation}},
            "components": {"schemas": {mischief: {"description": mischief}}},
        }
    )
    assert "<script" not in html


def test_documentation_is_made_without_touching_the_served_handlers() -> None:
    handlers: list[ControllerRouterHandler] = [app.api()]
    assert docs.document(handlers) == docs.document(handlers)

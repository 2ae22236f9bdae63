"""The page at `/`: one static file to talk to any personality. It loads nothing, and nothing else may run in it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

FILE = Path(__file__).parent / "static" / "index.html"
DEVELOPMENT_KEY = "sk-cozy-dev"
"""Offered in the key field where the records worker takes it; it takes it in development only."""
_KEY_FIELD = 'data-development-key=""'


def policy_of(html: str) -> str:
    """The content security policy under which the page's own script and style run, and no others."""
    allowed = {kind: _hash_of(html, kind) for kind in ("script", "style")}
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_of(html: str, tag: str) -> str:
    inline = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert inline is not None, f"the page has no <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()}'"


def page_route(development: bool) -> HTTPRouteHandler:
    """`GET /`: the page, its key field filled in where `development` keys are valid."""
    html = FILE.read_text(encoding="utf-8")
    headers = {"content-security-policy": policy_of(html), "cache-control": "no-cache"}
    if development:
        html = html.replace(_KEY_FIELD, f'data-development-key="{DEVELOPMENT_KEY}"', 1)
    content = html.encode()

    @get("/", include_in_schema=False)
    async def page() -> Response[bytes]:
        """The chat page."""
        return Response(content, media_type="text/html", headers=headers)

    return page

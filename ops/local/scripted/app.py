"""The server's resources: which request gets which answer."""

import hmac
import itertools
import logging
import time
import traceback
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

import httptools
import msgspec

from ops.local.scripted import chat_request, content, controls, embeddings, wire
from ops.local.scripted.chat_request import ChatRequest
from ops.local.scripted.connection import Exchange
from ops.local.scripted.controls import Controls, Failures
from ops.local.scripted.conversation import Conversation
from ops.local.scripted.pace import Pace
from ops.local.scripted.problems import Problem, model_not_found, scripted_failure, wrong_key
from ops.local.scripted.records import Record, Records
from ops.local.scripted.sending import StreamedReply, send_whole

MODELS = ("scripted", "scripted-small")
_CREATED = 1_767_225_600
_MOST_LISTED = 1000
_MODEL_PATH = "/v1/models/"

log = logging.getLogger(__name__)


class App:
    """Answers every request. `defaults` are the environment's controls; `api_key` None lets everyone in."""

    def __init__(self, pace: Pace, defaults: Mapping[str, str], api_key: str | None) -> None:
        self._pace = pace
        self._defaults = defaults
        self._api_key = api_key
        self._records = Records()
        self._failures = Failures()
        self._ids = itertools.count(1)
        self._run = f"{time.time_ns():x}"

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, at once or as a stream that goes on by itself."""
        record: Record | None = None
        try:
            url = httptools.parse_url(exchange.request.target)
            path = unquote(url.path.decode("latin-1"))
            if path.startswith("/v1/"):
                record = self._record(exchange, path)
                self._check_key(exchange)
                self._v1(exchange, record, path)
            else:
                self._own(exchange, path, parse_qs((url.query or b"").decode("latin-1")))
        except httptools.HttpParserInvalidURLError:
            self._refuse(exchange, record, Problem(400, "Invalid URL."))
        except Problem as problem:
            self._refuse(exchange, record, problem)
        except Exception as error:
            # An exception's own words may quote the request; where it happened is enough to find the bug.
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("scripted_request_failed %s\n%s", type(error).__name__, place)
            if record is not None and record.status is not None:
                exchange.cut()
            else:
                self._refuse(exchange, record, Problem(500, "The scripted server has a bug; see its log."))

    def _v1(self, exchange: Exchange, record: Record, path: str) -> None:
        match path:
            case "/v1/chat/completions":
                _expect(exchange, "POST")
                self._chat(exchange, record)
            case "/v1/embeddings":
                _expect(exchange, "POST")
                self._embeddings(exchange, record)
            case "/v1/models":
                _expect(exchange, "GET")
                _finish(exchange, record, msgspec.json.encode({"object": "list", "data": [*map(_model, MODELS)]}))
            case _ if path.startswith(_MODEL_PATH):
                _expect(exchange, "GET")
                name = path[len(_MODEL_PATH) :]
                _check_model(name)
                _finish(exchange, record, msgspec.json.encode(_model(name)))
            case _:
                raise Problem(404, "Invalid URL.")

    def _own(self, exchange: Exchange, path: str, query: Mapping[str, list[str]]) -> None:
        method = exchange.request.method
        if path == "/readyz":
            _expect(exchange, "GET")
            exchange.answer(200, b'{"status":"ok"}')
        elif path != "/scripted/requests":
            raise Problem(404, "Invalid URL.")
        elif method == "DELETE":
            self._records.clear()
            self._failures.clear()
            exchange.answer(204, b"", {})
        else:
            _expect(exchange, "GET")
            exchange.answer(200, self._records.listing(_limit(query)))

    def _chat(self, exchange: Exchange, record: Record) -> None:
        request = chat_request.chat_request(exchange.request.body)
        conversation = Conversation(request)
        wished = self._controls(exchange, conversation.marked_question, conversation.question)
        _check_model(request.model)
        identity = f"chatcmpl-{self._run}{next(self._ids):08x}"
        conversation.salt = identity if wished.vary else ""
        reply = content.plan(request, conversation, wished)
        created, usage = int(time.time()), wished.usage != "none"
        top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
        if not request.stream:
            body = wire.completion(reply, identity, created, request.model, usage=usage, top_logprobs=top_logprobs)
            send_whole(exchange, record, self._pace, wished, body, reply.count)
            return
        usage = usage and _wants_usage(request)
        chunks = wire.Chunks(identity, created, request.model, usage=usage, top_logprobs=top_logprobs)
        StreamedReply(
            exchange,
            record,
            self._pace,
            wished,
            opening=chunks.opening(reply),
            events=chunks.events(reply),
            count=reply.count,
            closing=chunks.closing(reply),
        ).start()

    def _embeddings(self, exchange: Exchange, record: Record) -> None:
        request = embeddings.embeddings_request(exchange.request.body)
        text = embeddings.texts_of(request)[0]
        wished = self._controls(exchange, "", text)
        _check_model(request.model)
        send_whole(exchange, record, self._pace, wished, embeddings.answer(request), 0)

    def _controls(self, exchange: Exchange, marked: str, question: str) -> Controls:
        """The controls to obey. A status to fail with is raised as the Problem it is."""
        wished = controls.read(exchange.request.headers, marked, self._defaults)
        wished = self._failures.judge(wished, question)
        if wished.fail_status is not None:
            raise scripted_failure(wished.fail_status, wished.retry_after_ms)
        return wished

    def _record(self, exchange: Exchange, path: str) -> Record:
        request = exchange.request
        return self._records.add(request.method, path, request.headers, request.body)

    def _check_key(self, exchange: Exchange) -> None:
        if self._api_key is None:
            return
        given = exchange.request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode()):
            raise wrong_key()

    def _refuse(self, exchange: Exchange, record: Record | None, problem: Problem) -> None:
        if record is not None:
            record.status, record.finished = problem.status, True
        exchange.answer(problem.status, problem.body(), {"content-type": "application/json", **problem.headers})


def _finish(exchange: Exchange, record: Record, body: bytes) -> None:
    record.status, record.finished = 200, True
    exchange.answer(200, body)


def _expect(exchange: Exchange, method: str) -> None:
    if exchange.request.method != method:
        raise Problem(405, "This method is not allowed here.", headers={"allow": method})


def _check_model(name: str) -> None:
    if name not in MODELS:
        raise model_not_found()


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "scripted"}


def _wants_usage(request: ChatRequest) -> bool:
    return bool(request.stream_options and request.stream_options.include_usage)


def _limit(query: Mapping[str, list[str]]) -> int:
    given = query.get("limit", [str(_MOST_LISTED)])[-1]
    if not given.isdecimal():
        raise Problem(400, "'limit' must be a whole number.", param="limit")
    return int(given)

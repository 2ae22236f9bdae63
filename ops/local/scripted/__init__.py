"""The scripted model server: an OpenAI-compatible stand-in that answers without a model, the same way every time.

    python -m ops.local.scripted --port 8100        (port 0 takes a free one; the first line printed is the URL)

It speaks `POST /v1/chat/completions` (streamed and whole), `GET /v1/models[/{id}]` and `POST /v1/embeddings`.
The same messages always get the same reply. It answers about the context it was given, so a newcomer sees the
system work, and it fails on request, so that tests and drills can. It is as strict as the real thing where that
catches mistakes: tool names, tool results without a call, `tool_choice` without `tools`.

Asking for it in words: "call NAME {json}" calls a declared tool, "what time is it" calls a declared clock,
"what did I say before" quotes the earlier messages. `tool_choice: required` calls a tool in every round, as
OpenAI does.

Controls come from three places, the first one winning: a header `x-scripted-gap-ms: 20`, a mark in the last user
message `[[gap=20 tokens=200 call='clock {}']]`, the environment `SCRIPTED_GAP_MS=20`. In marks `gap` and `ttft`
are short for `gap-ms` and `ttft-ms`. Marks are not part of the message: the reply is the same without them.

| control        | default | meaning |
|----------------|---------|---------|
| gap-ms         | 0       | pause between two tokens; an answer that is not streamed waits for all of them |
| ttft-ms        | 0       | pause before the first token; a stream's headers and role chunk do not wait |
| tokens         | -       | the whole reply has exactly this many content tokens (words that differ per conversation) |
| reasoning      | 0       | this many tokens of `reasoning_content` come first |
| call           | -       | `name {json}`, several joined by `;;`: call these tools, see below |
| fail           | none    | a status (`429`, `500`, `401`, `400`, any 4xx or 5xx), or `hang`, `cut`, `malformed` |
| fail-after     | 3       | tokens sent before `hang`, `cut`, `malformed`; with 0 the first two send no headers |
| fail-times     | always  | only the first so many requests fail ... |
| fail-key       | -       | ... counted over requests with this key, or else with the same last user message |
| retry-after-ms | 1000    | what a 429 or 503 asks for, as `retry-after-ms` and `Retry-After` (rounded up) |
| split-utf8     | 0       | 1: every token with a multi-byte character arrives in two parts, cut inside the character |
| usage          | normal  | `none`: never reports usage |
| seam           | none    | how a reply asked to continue begins, see below |
| vary           | 0       | 1: with `tokens`, other words for each request, as a real model has; going on included |

`call` calls those tools that the request declares, as long as no result follows the last user message. Arguments are
sent as written, broken ones too; where there are none they are made from the tool's schema.

`hang` goes silent with the connection open, `cut` closes it in the middle without a finish, `malformed` sends one
event that is not JSON and goes on. For answers that are not streamed: silence, half a body, a body that is not JSON.

Going on from a part of a reply. A reply is a function of the messages before it; where the given part is the
beginning of that reply, the rest follows exactly; where it is not, what lies behind as many tokens follows.
- prefill: the last message is the assistant's, with `continue_final_message: true, add_generation_prompt: false`
  (vLLM) or `"prefix": true` on that message (Mistral, DeepSeek).
- continue: the last two messages are the assistant's part and a user message that begins with "Continue". Here
  `seam` imitates models: `preamble` opens with "Sure, continuing: ", `repeat` says the part's last sentence again,
  `reword` says the part's last, perhaps broken, word again, `midword` goes on without the leading space.
  Marks are read from the user message before the part.

What it was asked: `GET /scripted/requests[?limit=n]` lists the newest requests to /v1, oldest first, each
`{id, method, path, headers, body, at, status, tokens_sent, finished, closed_early}`. Credentials are reduced to
their last 4 characters; `closed_early` says that the client left before the end. `DELETE /scripted/requests`
forgets them and the counts of `fail-times`. `GET /readyz` answers 200. With SCRIPTED_API_KEY set, /v1 wants that key.
"""

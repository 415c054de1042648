"""`/tokenize` and `/detokenize` with the fields of llama.cpp and of vLLM."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
from starlette.types import Receive, Scope, Send

from service.dialects.json_body import decode
from service.dialects.openai_chat import OpenAIChat
from service.endpoints.context import ServiceContext
from service.errors import MissingParameter
from service.http.body import check_content
from service.http.cache_headers import forbids_storing
from service.http.client_watch import ClientGone, ClientWatch
from service.http.request_headers import RequestHeaders
from service.http.responses import json_response
from service.model_registry.registry import ModelRegistry
from service.queries import Detokenize, TextFound, Tokenize, TokensFound
from service.response_cache.caching_executor import CachingExecutor


class TokenizeRequest(msgspec.Struct):
    """llama.cpp has `content`, `add_special` (false) and `with_pieces`. vLLM has `prompt` or `messages`,
    `add_special_tokens` (true) and `return_token_strs`."""

    content: str | None = None
    prompt: str | None = None
    messages: Any = None
    model: str | None = None
    add_special: bool = False
    add_special_tokens: bool = True
    with_pieces: bool = False
    return_token_strs: bool = False


class DetokenizeRequest(msgspec.Struct):
    tokens: list[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]]
    model: str | None = None


_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeRequest)


AnswerTokens = Callable[[ModelRegistry, RequestHeaders, bytes], Coroutine[Any, Any, dict[str, Any]]]


class TokensEndpoint:
    """`answer` is `tokenize` or `detokenize`."""

    def __init__(self, context: ServiceContext, answer: AnswerTokens) -> None:
        self._context = context
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["state"]["headers"]
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
            content = await ClientWatch(receive).run(self._answer(self._context.registry, headers, body))
        except ClientGone:
            return
        await json_response(content)(scope, receive, send)


async def tokenize(registry: ModelRegistry, headers: RequestHeaders, body: bytes) -> dict[str, Any]:
    asked = decode(_TOKENIZE, body)
    executor = registry.find(asked.model)
    if asked.messages is not None and asked.content is None and asked.prompt is None:
        request = OpenAIChat().decode(body, executor.profile.sampling).request
        count = await executor.count_tokens(request, recorded=not forbids_storing(headers))
        content: dict[str, Any] = {"count": count}
    else:
        content = await _tokens(executor, asked)
    content["max_model_len"] = executor.status().context_length(executor.profile)
    return content


async def detokenize(registry: ModelRegistry, _: RequestHeaders, body: bytes) -> dict[str, Any]:
    asked = decode(_DETOKENIZE, body)
    found = await registry.find(asked.model).ask(Detokenize(tuple(asked.tokens)))
    assert isinstance(found, TextFound)  # noqa: S101  (what the query finds)
    return {"content": found.text, "prompt": found.text}


async def _tokens(executor: CachingExecutor, asked: TokenizeRequest) -> dict[str, Any]:
    if asked.content is not None:
        query = Tokenize(asked.content, asked.add_special)
    elif asked.prompt is not None:
        query = Tokenize(asked.prompt, asked.add_special_tokens)
    else:
        raise MissingParameter("content")
    found = await executor.ask(query)
    assert isinstance(found, TokensFound)  # noqa: S101  (what the query finds)
    pieces = [piece.decode(errors="replace") for piece in found.pieces]
    content: dict[str, Any] = {"tokens": list(found.tokens), "count": len(found.tokens)}
    if asked.with_pieces:
        content["tokens"] = [{"id": token, "piece": piece} for token, piece in zip(found.tokens, pieces, strict=True)]
    if asked.return_token_strs:
        content["token_strs"] = pieces
    return content

"""`/tokenize` and `/detokenize` with the fields of llama.cpp and of vLLM."""

from typing import Annotated, Any

import msgspec
from starlette.types import Receive, Scope, Send

from service.dialects.json_body import decode
from service.dialects.openai_chat import OpenAIChat
from service.endpoints.context import ServiceContext
from service.errors import MissingParameter
from service.http.body import check_content
from service.http.client_watch import ClientGone, ClientWatch
from service.http.responses import json_response
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


class TokenizeEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._chat = OpenAIChat()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["state"]["headers"]
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
            content = await ClientWatch(receive).run(self._answer(body))
        except ClientGone:
            return
        await json_response(content)(scope, receive, send)

    async def _answer(self, body: bytes) -> dict[str, Any]:
        asked = decode(_TOKENIZE, body)
        executor = self._context.models.find(asked.model)
        if asked.messages is not None and asked.content is None and asked.prompt is None:
            content: dict[str, Any] = {"count": await self._count(executor, body)}
        else:
            content = await self._tokens(executor, asked)
        content["max_model_len"] = executor.status().context_length(executor.profile)
        return content

    async def _count(self, executor: CachingExecutor, body: bytes) -> int:
        return await executor.count_tokens(self._chat.decode(body, executor.profile.sampling).request)

    async def _tokens(self, executor: CachingExecutor, asked: TokenizeRequest) -> dict[str, Any]:
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
            content["tokens"] = [
                {"id": token, "piece": piece} for token, piece in zip(found.tokens, pieces, strict=True)
            ]
        if asked.return_token_strs:
            content["token_strs"] = pieces
        return content


class DetokenizeEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["state"]["headers"]
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
            asked = decode(_DETOKENIZE, body)
            executor = self._context.models.find(asked.model)
            found = await ClientWatch(receive).run(executor.ask(Detokenize(tuple(asked.tokens))))
        except ClientGone:
            return
        assert isinstance(found, TextFound)  # noqa: S101  (what the query finds)
        await json_response({"content": found.text, "prompt": found.text})(scope, receive, send)

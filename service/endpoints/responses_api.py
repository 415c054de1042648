"""`/v1/responses`: generation, counts, and stored responses."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dialects.base import ClientRequest, Dialect, Reply
from service.dialects.openai_responses import OpenAIResponses, ResponseCompaction
from service.dialects.openai_responses.answer import asked_of
from service.dialects.openai_responses.kept import KeptResponse, named_responses
from service.dialects.openai_responses.request import Asked
from service.dialects.openai_responses.truncation import without_oldest_turns
from service.endpoints.context import ServiceContext
from service.endpoints.count_tokens import CountTokensEndpoint
from service.endpoints.generation import Submission
from service.endpoints.searching import SearchingEndpoint
from service.endpoints.stored_responses import StoredResponses
from service.errors import BadRequest, ContextLengthExceeded
from service.generation import GenerationRequest
from service.http.query import read_limit
from service.http.responses import json_response
from service.response_cache.base import CachedAnswer

PAGE, MAX_PAGE = 20, 100
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
# Leaves room for errors in the estimate that shortens a conversation.
SPARE = 0.95


class ResponsesEndpoint(SearchingEndpoint):
    def __init__(
        self, context: ServiceContext, dialect: OpenAIResponses | ResponseCompaction, stored: StoredResponses
    ) -> None:
        super().__init__(context, dialect)
        self._responses = dialect
        self._stored = stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        await self._stored.save()

    async def _dialect_for(self, caller: str, body: bytes) -> Dialect:
        await self._stored.load(caller, named_responses(body))
        return self._responses.of_caller(caller)

    async def _submit(self, submission: Submission) -> CachedAnswer:
        while True:
            try:
                return await super()._submit(submission)
            except ContextLengthExceeded as exceeded:
                shorter = _shortened(submission.asked, submission.request, exceeded)
                if shorter is None:
                    raise
                submission = msgspec.structs.replace(submission, request=shorter)

    def _reply(self, submission: Submission, answer: CachedAnswer) -> Reply:
        reply = super()._reply(submission, answer)
        if submission.directives.no_store:
            reply = msgspec.structs.replace(
                reply, dialect_state=msgspec.structs.replace(asked_of(reply), is_kept=False)
            )
        return reply

    def _patience(self, asked: ClientRequest) -> float | None:
        # Once the stream is open, the conversation cannot be shortened.
        return None if _may_shorten(asked) else super()._patience(asked)


class InputTokensEndpoint(CountTokensEndpoint):
    def __init__(self, context: ServiceContext, dialect: OpenAIResponses, stored: StoredResponses) -> None:
        super().__init__(context, dialect)
        self._responses = dialect
        self._stored = stored

    async def _dialect_for(self, caller: str, body: bytes) -> OpenAIResponses:
        await self._stored.load(caller, named_responses(body))
        return self._responses.of_caller(caller)


class StoredResponsesEndpoint:
    def __init__(self, stored: StoredResponses) -> None:
        self._stored = stored

    async def get(self, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise BadRequest("A stored response is not streamed again. Leave 'stream' out.", param="stream")
        kept = await self._find(request)
        return Response(kept.encoded, media_type="application/json")

    async def delete(self, request: Request) -> Response:
        response_id = request.path_params["id"]
        await self._stored.remove(request.scope["state"]["caller"], response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        response_id = request.path_params["id"]
        kept = await self._find(request)
        items = [_identified(item, response_id, i) for i, item in enumerate(kept.items)]
        return json_response(_page(items, request))

    async def cancel(self, request: Request) -> Response:
        await self._find(request)
        raise BadRequest("Only background responses can be cancelled, and there are none here.")

    async def _find(self, request: Request) -> KeptResponse:
        """Raises `ResponseGone`."""
        caller, response_id = request.scope["state"]["caller"], request.path_params["id"]
        return (await self._stored.load(caller, [response_id])).get(response_id)


def _may_shorten(asked: ClientRequest) -> bool:
    return isinstance(asked.dialect_state, Asked) and asked.dialect_state.body.truncation == "auto"


def _shortened(
    asked: ClientRequest, request: GenerationRequest, exceeded: ContextLengthExceeded
) -> GenerationRequest | None:
    if not _may_shorten(asked):
        return None
    return without_oldest_turns(request, SPARE * exceeded.context_length / exceeded.prompt_tokens)


def _identified(item: msgspec.Raw, response_id: str, index: int) -> dict[str, Any]:
    # Fields that nothing read stay as they were sent: not every number in them can be decoded.
    fields: dict[str, Any] = {"type": "message", **_FIELDS.decode(item)}
    try:
        fields["id"] = _TEXT.decode(fields["id"])
    except (KeyError, UnicodeError, msgspec.ValidationError):
        fields["id"] = f"{response_id.replace('resp', 'item')}{index:03d}"
    return fields


def _page(items: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Newest first, unless the request has `order=asc`."""
    order, after = request.query_params.get("order", "desc"), request.query_params.get("after")
    limit = read_limit(request, PAGE, MAX_PAGE)
    if order == "desc":
        items = items[::-1]
    if after is not None:
        start = next((i + 1 for i, item in enumerate(items) if item["id"] == after), len(items))
        items = items[start:]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "has_more": len(items) > len(page),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }

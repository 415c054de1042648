"""`/v1/models` for OpenAI's and Anthropic's clients alike, and loading by hand."""

import datetime

from starlette.types import Receive, Scope, Send

from service.endpoints.context import ServiceContext
from service.http.body import check_origin
from service.http.responses import json_response
from service.response_cache.caching_executor import CachingExecutor
from service.settings import Settings


class ModelListEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = [describe(executor, self._context.settings) for executor in self._context.registry.executors.values()]
        first, last = models[0]["id"], models[-1]["id"]
        page = {"object": "list", "data": models, "has_more": False, "first_id": first, "last_id": last}
        await json_response(page)(scope, receive, send)


class ModelEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        executor = self._context.registry.find(scope["path_params"]["id"])
        await json_response(describe(executor, self._context.settings))(scope, receive, send)


class ModelLoadEndpoint:
    """`POST /v1/models/ID/load` and `/unload`. They answer with the model when they are done."""

    def __init__(self, context: ServiceContext, *, loads: bool) -> None:
        self._context = context
        self._loads = loads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_origin(scope["state"]["headers"])
        registry, name = self._context.registry, scope["path_params"]["id"]
        await (registry.load(name) if self._loads else registry.unload(name))
        await json_response(describe(registry.find(name), self._context.settings))(scope, receive, send)


def describe(executor: CachingExecutor, settings: Settings) -> dict[str, object]:
    """Merges OpenAI's model object and Anthropic's. `context_length` is in tokens."""
    profile, status = executor.profile, executor.status()
    context_length = status.context_length(profile)
    created = datetime.datetime.fromtimestamp(profile.created, datetime.UTC)
    return {
        "id": profile.id,
        "object": "model",
        "created": profile.created,
        "owned_by": "local",
        "type": "model",
        "display_name": profile.id,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "context_length": context_length,
        "max_model_len": context_length,
        "max_input_tokens": context_length,
        "max_tokens": context_length,
        "lifecycle": "active",
        "loaded": status.loaded,
        "status": status.state,
        "capabilities": _capabilities(profile.thinks, searches=bool(settings.web_search_url)),
    }


def _capabilities(thinks: bool, *, searches: bool) -> dict[str, object]:
    """Returns a part of Anthropic's model object, whose clients read every key but the last two."""
    yes, no = {"supported": True}, {"supported": False}
    can_think, can_search = {"supported": thinks}, {"supported": searches}
    kinds = {"adaptive": can_think, "between_tools": yes, "disabled": yes, "enabled": can_think}
    return {
        **dict.fromkeys(("batch", "citations", "code_execution", "context_management", "image_input", "pdf_input"), no),
        "effort": {**can_think, **dict.fromkeys(("low", "medium", "high", "xhigh", "max"), can_think)},
        "server_tools": {**can_search, "web_search": can_search, "code_execution": no},
        "structured_outputs": yes,
        "thinking": {**can_think, "types": kinds},
        "tools": yes,
        "json_schema": yes,
    }

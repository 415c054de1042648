"""`GET /v1/models` and `GET /v1/models/ID`: one object that OpenAI's and Anthropic's clients both read."""

import datetime

from starlette.types import Receive, Scope, Send

from service.endpoints.context import ServiceContext
from service.http.model_names import check_model
from service.http.responses import json_response
from service.profile import ModelProfile


class ModelListEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = describe(self._context.executor.profile)
        page = {"object": "list", "data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
        await json_response(page)(scope, receive, send)


class ModelEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        profile = self._context.executor.profile
        check_model(profile, scope["path_params"]["id"])
        await json_response(describe(profile))(scope, receive, send)


def describe(profile: ModelProfile) -> dict[str, object]:
    """OpenAI's model object and Anthropic's in one; `context_length` is in tokens."""
    created = datetime.datetime.fromtimestamp(profile.created, datetime.UTC)
    return {
        "id": profile.id,
        "object": "model",
        "created": profile.created,
        "owned_by": "local",
        "type": "model",
        "display_name": profile.id,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "context_length": profile.context_length,
        "max_model_len": profile.context_length,
        "max_input_tokens": profile.context_length,
    }

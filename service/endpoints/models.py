"""`GET /v1/models` and `GET /v1/models/ID`: one object that OpenAI's and Anthropic's clients both read."""

import datetime

from starlette.requests import Request
from starlette.responses import Response

from service.endpoints.context import ServiceContext
from service.endpoints.json_response import json_response
from service.http.access import identify_caller
from service.http.model_names import check_model
from service.http.request_headers import read_headers
from service.profile import ModelProfile


class ModelsEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        identify_caller(read_headers(request.scope), self._context.settings)
        model = describe(self._context.executor.profile)
        page = {"object": "list", "data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
        return json_response(page)

    async def get(self, request: Request) -> Response:
        identify_caller(read_headers(request.scope), self._context.settings)
        profile = self._context.executor.profile
        check_model(profile, request.path_params["id"])
        return json_response(describe(profile))


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

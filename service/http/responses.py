import logging
import math
from collections.abc import Mapping

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Dialect
from service.dialects.openai_chat import OpenAIChat
from service.errors import SHOWN_CHARS, BadRequest, InternalError, MethodNotAllowed, ServiceError, UnknownPath

logger = logging.getLogger("anyclaude.error")

NO_STORE: Mapping[str, str] = {"cache-control": "no-store"}


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def error_dialect(scope: Scope) -> Dialect:
    """Anthropic's for its paths and clients that send its version, else OpenAI's."""
    if scope["path"].startswith("/v1/messages") or "anthropic-version" in Headers(scope=scope):
        return AnthropicMessages()
    return OpenAIChat()


def error_response(scope: Scope, error: ServiceError) -> Response:
    dialect = error_dialect(scope)
    request_id = scope["state"]["request_id"]
    headers = {dialect.request_id_header: request_id}
    if "record" in scope["state"]:
        headers["cache-status"] = f"anyclaude; detail={error.code}"  # no `hit` and no `fwd`, because there is no answer
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.final:
        headers["x-should-retry"] = "false"  # OpenAI's and Anthropic's servers send this header too
    return Response(
        dialect.encode_error(error, request_id),
        status_code=dialect.error_status(error),
        headers=headers,
        media_type="application/json",
    )


async def handle_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101  (registered for this class alone)
    return error_response(request.scope, error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for this class alone)
    method, path = request.method, request.url.path[:SHOWN_CHARS]
    told: ServiceError
    match error.status_code:
        case 404:
            told = UnknownPath(f"There is no {method} {path} here. {_endpoints(request)}")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            told = MethodNotAllowed(f"{path} does not take {method}. Allowed: {allowed}.")
        case _:
            told = BadRequest(str(error.detail))
    response = error_response(request.scope, told)
    response.headers.update(error.headers or {})
    return response


def _endpoints(request: Request) -> str:
    paths = [
        route.path
        for route in request.app.routes
        if route.path.startswith("/v1/") and "{" not in route.path and "POST" in route.methods
    ]
    return f"Ask at POST {', '.join(paths)}, and for models at GET /v1/models."


async def handle_defect(request: Request, error: Exception) -> Response:
    """Sends the request's id to the client. The log gets the traceback."""
    request_id = request.scope["state"]["request_id"]
    logger.error("request %s failed", request_id, exc_info=error)
    return error_response(request.scope, InternalError(f"The server failed. Its log has the details of {request_id}."))

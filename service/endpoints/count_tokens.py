"""`POST /v1/messages/count_tokens`: how long the prompt is, by the model's own template and tokenizer."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dialects.anthropic_messages import AnthropicMessages
from service.endpoints.context import ServiceContext
from service.http.access import identify_caller
from service.http.body import check_content
from service.http.client_watch import ClientGone
from service.http.model_names import check_model
from service.http.request_headers import read_headers


class CountTokensEndpoint:
    def __init__(self, context: ServiceContext, dialect: AnthropicMessages) -> None:
        self._context = context
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        executor = self._context.executor
        headers = read_headers(scope)
        identify_caller(headers, self._context.settings)
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
        except ClientGone:
            return
        asked = self._dialect.decode_count(body, executor.profile.sampling)
        check_model(executor.profile, asked.model)
        count = await executor.count_tokens(asked.request)
        response = Response(self._dialect.encode_count(count), media_type="application/json")
        await response(scope, receive, send)

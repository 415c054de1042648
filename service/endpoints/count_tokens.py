"""`POST /v1/messages/count_tokens`, and the base of `POST /v1/responses/input_tokens`."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_responses import OpenAIResponses
from service.endpoints.context import ServiceContext
from service.endpoints.generation import with_defaults
from service.http.body import check_content
from service.http.cache_headers import forbids_storing
from service.http.client_watch import ClientGone, ClientWatch

CountingDialect = AnthropicMessages | OpenAIResponses


class CountTokensEndpoint:
    def __init__(self, context: ServiceContext, dialect: CountingDialect) -> None:
        self._context = context
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        registry, headers = self._context.registry, scope["state"]["headers"]
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
            dialect = await self._dialect_for(scope["state"]["caller"], body)
            asked = dialect.decode_count(body, registry.default.profile.sampling)
            executor = registry.find(asked.model)
            request = with_defaults(asked.request, executor.profile, caller="")
            counting = executor.count_tokens(request, recorded=not forbids_storing(headers))
            count = await ClientWatch(receive).run(counting)
        except ClientGone:
            return
        await Response(dialect.encode_count(count), media_type="application/json")(scope, receive, send)

    async def _dialect_for(self, caller: str, body: bytes) -> CountingDialect:
        return self._dialect

"""`POST /v1/messages/count_tokens`."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dialects.anthropic_messages import AnthropicMessages
from service.endpoints.context import ServiceContext
from service.endpoints.generation import with_defaults
from service.http.body import check_content
from service.http.client_watch import ClientGone, ClientWatch


class CountTokensEndpoint:
    def __init__(self, context: ServiceContext, dialect: AnthropicMessages) -> None:
        self._context = context
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        models, headers = self._context.models, scope["state"]["headers"]
        check_content(headers)
        try:
            body = await self._context.bodies.read(receive, headers)
            asked = self._dialect.decode_count(body, models.default.profile.sampling)
            executor = models.find(asked.model)
            request = with_defaults(asked.request, executor.profile, caller="")
            count = await ClientWatch(receive).run(executor.count_tokens(request))
        except ClientGone:
            return
        await Response(self._dialect.encode_count(count), media_type="application/json")(scope, receive, send)

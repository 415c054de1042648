import msgspec

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import ClientRequest
from service.endpoints.context import ServiceContext
from service.endpoints.generation import GenerationEndpoint
from service.generation import GenerationRequest
from service.response_cache.base import CachedAnswer, CacheDirectives
from service.response_cache.caching_executor import CachingExecutor
from service.telemetry.request_log import RequestRecord
from service.web_search.answer import SearchingAnswer
from service.web_search.searxng import SearxngServer


class MessagesEndpoint(GenerationEndpoint):
    def __init__(self, context: ServiceContext, dialect: AnthropicMessages) -> None:
        super().__init__(context, dialect)
        url = context.settings.web_search_url
        self._search = SearxngServer(url) if url else None

    async def _submit(
        self,
        executor: CachingExecutor,
        asked: ClientRequest,
        request: GenerationRequest,
        directives: CacheDirectives,
        record: RequestRecord,
    ) -> CachedAnswer:
        if asked.web_search is None or self._search is None:
            return await super()._submit(executor, asked, request, directives, record)
        # The web changes, and so does an answer that is made of it.
        directives = msgspec.structs.replace(directives, bypass=True)

        async def submit(following: GenerationRequest) -> CachedAnswer:
            return await executor.submit(following, directives)

        first = await super()._submit(executor, asked, request, directives, record)
        return SearchingAnswer(first, request, submit, asked.web_search, self._search)

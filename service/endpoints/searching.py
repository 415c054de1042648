import msgspec

from service.dialects.base import Dialect
from service.endpoints.context import ServiceContext
from service.endpoints.generation import GenerationEndpoint, Submission
from service.generation import GenerationRequest
from service.response_cache.base import CachedAnswer
from service.web_search.answer import SearchingAnswer
from service.web_search.searxng import SearxngServer


class SearchingEndpoint(GenerationEndpoint):
    """Runs the web searches of an answer, if a search server is configured."""

    def __init__(self, context: ServiceContext, dialect: Dialect) -> None:
        super().__init__(context, dialect)
        url = context.settings.web_search_url
        self._search = SearxngServer(url) if url else None

    async def _submit(self, submission: Submission) -> CachedAnswer:
        tool = submission.asked.web_search
        if tool is None or self._search is None:
            return await super()._submit(submission)
        # The web changes, and so does an answer that is made of it.
        directives = msgspec.structs.replace(submission.directives, bypass=True)

        async def submit(following: GenerationRequest) -> CachedAnswer:
            return await submission.executor.submit(following, directives)

        first = await super()._submit(msgspec.structs.replace(submission, directives=directives))
        return SearchingAnswer(first, submission.request, submit, tool, self._search)

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from service.dialects.base import WebSearchTool
from service.events import (
    ChoiceFinished,
    CompletionBuilder,
    Done,
    Event,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
    WebSearched,
)
from service.executor.base import collect
from service.generation import (
    Choice,
    Completion,
    GenerationRequest,
    Message,
    SearchError,
    SearchResult,
    ToolCall,
    ToolChoice,
    Usage,
    WebSearch,
    total_usage,
)
from service.response_cache.base import CachedAnswer, CacheOutcome, completed
from service.web_search.searxng import SearchFailed, SearxngServer

# A model that never stops searching is stopped here.
MAX_SEARCHES = 10

SubmitNext = Callable[[GenerationRequest], Awaitable[CachedAnswer]]


class SearchArguments(msgspec.Struct):
    query: str


class SearchingAnswer:
    """A `CachedAnswer` that runs the model's searches and generates on with their results.

    `first` is the answer to `request`, `submit` gets those that follow. A call of another tool ends the answer, because
    the client runs it. The web changes, so the response cache holds nothing of it.
    """

    outcome: CacheOutcome = "bypass"
    stored = False
    age = None

    def __init__(
        self,
        first: CachedAnswer,
        request: GenerationRequest,
        submit: SubmitNext,
        tool: WebSearchTool,
        server: SearxngServer,
    ) -> None:
        self.prompt_tokens = first.prompt_tokens
        self._answer = first
        self._request = request
        self._submit = submit
        self._tool = tool
        self._server = server
        self._written = 0
        self._searches_left = MAX_SEARCHES if tool.max_uses is None else min(tool.max_uses, MAX_SEARCHES)
        self._events = self._generate()
        self._whole = False

    @property
    def read_tokens(self) -> int | None:
        return self._answer.read_tokens

    @property
    def written(self) -> int:
        return self._written + self._answer.written

    def events(self) -> AsyncIterator[Event]:
        return self._events

    async def completion(self) -> Completion:
        self._whole = True
        return await collect(self._events)

    async def aclose(self) -> None:
        await self._events.aclose()
        await self._answer.aclose()

    async def _generate(self) -> AsyncGenerator[Event, None]:
        usages: list[Usage] = []
        while True:
            offered = any(tool.name == self._tool.name for tool in self._request.tools)
            builder, shown = CompletionBuilder(), _ShownEvents(self._tool.name if offered else "")
            async for event in completed(self._answer) if self._whole else self._answer.events():
                builder.feed(event)
                if shown.includes(event):
                    yield event
            step = builder.build()
            usages.append(step.usage)
            choice = step.choices[0]
            calls = [call for call in choice.tool_calls if offered and call.name == self._tool.name]
            if choice.finish_reason != "tool_calls" or not calls:
                yield ChoiceFinished(0, choice.finish_reason, choice.stop_sequence)
                break
            searches = []
            for call in calls:
                searches.append(await self._search(call))
                yield WebSearched(0, searches[-1])
            left = None if self._request.max_tokens is None else self._request.max_tokens - step.usage.completion_tokens
            if len(calls) < len(choice.tool_calls) or (left is not None and left <= 0):
                yield ChoiceFinished(0, "tool_calls" if len(calls) < len(choice.tool_calls) else "length")
                break
            self._written += self._answer.written
            self._request = _continued(self._request, choice, searches, left)
            self._answer = await self._submit(self._request)
        yield Done(total_usage(usages))

    async def _search(self, call: ToolCall) -> WebSearch:
        results: tuple[SearchResult, ...] = ()
        error: SearchError | None = None
        if self._searches_left == 0:
            error = "max_uses_exceeded"
        else:
            self._searches_left -= 1
            try:
                query = msgspec.json.decode(call.arguments, type=SearchArguments).query
                results = await self._server.search(query, self._tool)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                error = "invalid_tool_input"
            except SearchFailed as failed:
                error = failed.code
        return WebSearch(call.id, call.name, call.arguments, results, error)


class _ShownEvents:
    """The events that the client sees while a step runs: neither calls of `tool` nor the ending."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._in_search = False

    def includes(self, event: Event) -> bool:
        match event:
            case ChoiceFinished() | Done():
                return False
            case ToolCallStarted(name=name):
                self._in_search = name == self._tool
            case ToolCallDelta() | ToolCallAbandoned():
                pass
            case _:
                self._in_search = False
        return not self._in_search


def _continued(
    request: GenerationRequest, choice: Choice, searches: Sequence[WebSearch], max_tokens: int | None
) -> GenerationRequest:
    """Drops the tool once it has been used too often, and the tool choice, which the searches have satisfied."""
    said = Message(role="assistant", content=choice.text, reasoning=choice.reasoning, tool_calls=choice.tool_calls)
    tools = request.tools
    if any(search.error == "max_uses_exceeded" for search in searches):
        tools = tuple(tool for tool in tools if tool.name != searches[0].name)
    return msgspec.structs.replace(
        request,
        messages=(*request.messages, said, *map(_result, searches)),
        tools=tools,
        tool_choice=ToolChoice(),
        max_tokens=max_tokens,
    )


def _result(search: WebSearch) -> Message:
    if search.error is not None:
        text = f"The search failed: {search.error}. Answer without it, and mention that."
    else:
        pages = (f"{page.title}\n{page.url}\n{page.snippet}".strip() for page in search.results)
        text = "\n\n".join(pages) or "Nothing was found."
    return Message(role="tool", content=text, tool_call_id=search.id, is_error=search.error is not None)

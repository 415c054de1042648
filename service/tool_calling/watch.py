import logging
from collections.abc import Iterable, Sequence

from service.events import Event, ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.generation import Tool, ToolCall
from service.tallies import CallTally
from service.tool_calling.arguments import mismatches

log = logging.getLogger(__name__)


class CallWatch:
    """Counts an answer's calls and checks them against their schemas. A call that does not fit is logged, counted, and
    still sent."""

    def __init__(self, tools: Sequence[Tool], tally: CallTally) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._tally = tally
        self._open: ToolCallStarted | None = None
        self._arguments: list[str] = []

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, ToolCallDelta):
                self._arguments.append(event.arguments)
                continue
            if isinstance(event, ToolCallAbandoned):
                self._open = None
            self._close()
            if isinstance(event, ToolCallStarted):
                self._open = event

    def finish(self, counts: CallTally) -> None:
        self._close()
        self._tally.add(counts)

    def count_unclosed(self, calls: int) -> None:
        self._tally.unclosed += calls

    def _close(self) -> None:
        opened, self._open = self._open, None
        arguments = "".join(self._arguments)
        self._arguments.clear()
        tool = self._tools.get(opened.name) if opened is not None else None
        if opened is None or tool is None:
            return
        found = mismatches(ToolCall(opened.id, opened.name, arguments), tool)
        if found:
            self._tally.mismatched += 1
            log.warning("A call of the tool %s does not fit its schema in %d places", opened.name, len(found))

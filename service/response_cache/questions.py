from collections import OrderedDict

from service.generation import GenerationRequest

REMEMBERED = 1000
SHOWN_CHARS = 100


class Questions:
    """The first line of the last user message, by key. Remembers nothing unless `kept`, because it is content."""

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._lines: OrderedDict[str, str] = OrderedDict()

    def see(self, key: str, request: GenerationRequest) -> None:
        if not self._kept:
            return
        self._lines[key] = _first_line(request)
        self._lines.move_to_end(key)
        if len(self._lines) > REMEMBERED:
            self._lines.popitem(last=False)

    def of(self, key: str) -> str:
        return self._lines.get(key, "")


def _first_line(request: GenerationRequest) -> str:
    last = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    if request.raw_prompt is not None:
        last = request.raw_prompt.text
    return next((line.strip()[:SHOWN_CHARS] for line in last.splitlines() if line.strip()), "")

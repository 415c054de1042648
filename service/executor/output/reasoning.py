from service.executor.output.string_finder import StringFinder
from service.executor.scheduling.messages import ReasoningMarkers


class ReasoningSplitter:
    """Splits reasoning from the answer and drops white space between them. An end marker before the answer is dropped,
    because models repeat it. Markers after the beginning of the answer are text. `inside`: in reasoning now."""

    def __init__(self, markers: ReasoningMarkers, *, inside: bool) -> None:
        self._markers = markers
        self._end = StringFinder([markers.closes])
        self._head = ""
        self._answering = False
        self._reasoned = False
        self._reasoning_begun = False
        self.inside = inside

    @property
    def undecided(self) -> bool:
        """True while held text may become the opening marker."""
        return bool(self._head)

    def feed(self, text: str) -> tuple[str, str]:
        """Returns reasoning and answer."""
        if self._answering:
            return "", text
        reasoning, answer = [], ""
        while text:
            if self.inside:
                thought, text = self._read_reasoning(text)
                reasoning.append(thought)
            else:
                answer, text = self._read_head(text)
        return "".join(reasoning), answer

    def finish(self) -> tuple[str, str]:
        head, self._head = self._head, ""
        return self._end.finish(), head if not self._reasoned else head.lstrip()

    def _read_reasoning(self, text: str) -> tuple[str, str]:
        if not self._reasoning_begun:
            text = text.lstrip("\r\n")
            self._reasoning_begun = bool(text)
        thought, rest = self._end.feed(text)
        if self._end.found is not None:
            self._end.found = None
            self.inside = self._reasoning_begun = False
            self._reasoned = True
        return thought, rest

    def _read_head(self, text: str) -> tuple[str, str]:
        head = self._head + text
        body = head.lstrip()
        for marker in (self._markers.opens, self._markers.closes):
            if body.startswith(marker):
                self._head = ""
                self.inside = marker == self._markers.opens
                self._reasoned = True
                return "", body[len(marker) :]
        if self._markers.opens.startswith(body) or self._markers.closes.startswith(body):
            self._head = head
            return "", ""
        self._head = ""
        self._answering = True
        return body if self._reasoned else head, ""

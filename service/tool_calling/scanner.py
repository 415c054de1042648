import re
from collections.abc import Sequence

from service.tool_calling.calls import CallAttempt, Calls
from service.tool_calling.family import Opening, Place
from service.tool_calling.source import BLANK, Cut, NotACall, Reading, Source

THOUGHTS = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]"}
EXAMPLE_WORDS = ("example", "e.g.", "for instance", "syntax")
_LINE = re.compile(r"[^\n]*")
_IN_SPAN = re.compile(r"[^\n`]*")
_FENCES = {"`": re.compile("`*"), "~": re.compile("~*")}


class _Openings:
    def __init__(self, openings: Sequence[Opening], place: Place) -> None:
        self._by_marker: dict[str, list[Opening]] = {}
        self._by_first: dict[str, tuple[str, ...]] = {}
        for opening in openings:
            for marker in opening.markers if opening.place == place else ():
                self._by_marker.setdefault(marker, []).append(opening)
        for marker in self._by_marker:
            self._by_first[marker[0]] = (*self._by_first.get(marker[0], ()), marker)
        self.first = "".join(self._by_first)

    def marker(self, source: Source) -> Reading[str]:
        first = yield from source.peek()
        return (yield from source.which(self._by_first.get(first, ())))

    def of(self, marker: str) -> Sequence[Opening]:
        return self._by_marker.get(marker, ())


class CallScanner:
    """Finds where calls open; skips code, thoughts, and lines and fenced blocks after words like "for example". Fences
    and code spans are CommonMark's (0.31.2, sections 4.5 and 6.1), except in `_span_closes`."""

    def __init__(self, source: Source, calls: Calls, openings: Sequence[Opening]) -> None:
        self._source = source
        self._calls = calls
        self._trial: Calls | None = None  # calls that count only if nothing follows
        self._tail = ""
        self._start = [opening for opening in openings if opening.place == "start"]
        self._anywhere = _Openings(openings, "anywhere")
        self._line = _Openings(openings, "line")
        self._fence = _Openings(openings, "fence")
        self._plain = re.compile(f"[^\n`{re.escape(self._anywhere.first)}]*")

    def run(self) -> Reading[None]:
        new_line = yield from self._beginning()
        while (yield from self._source.peek()):
            new_line = yield from (self._line_start() if new_line else self._rest_of_line())
        if self._trial is not None and not self._source.truncated:
            self._calls.adopt(self._trial)
        else:
            self._forget_trial()
        self._calls.finish()

    def _beginning(self) -> Reading[bool]:
        yield from self._source.peek()
        read = bool(self._start) and (yield from self._attempt("", self._start, self._calls))
        return read or not self._tail

    def _line_start(self) -> Reading[bool]:
        self._text((yield from self._source.run(BLANK)))
        fence = yield from self._source.which(("```", "~~~"))
        if fence:
            yield from self._fenced(fence)
            return False
        thought = yield from self._source.which(tuple(THOUGHTS))
        if thought:
            self._text(self._source.take(len(thought)))
            yield from self._thought(THOUGHTS[thought])
            return False
        if (yield from self._anywhere.marker(self._source)):
            return False
        marker = yield from self._line.marker(self._source)
        if not marker or self._after_example():
            return False
        return (yield from self._attempt(marker, self._line.of(marker), self._unmarked_calls()))

    def _rest_of_line(self) -> Reading[bool]:
        span = 0  # the backticks of an open code span; -1 if the line has no more spans
        while True:
            self._text(self._source.take_while(self._plain))
            char = yield from self._source.peek()
            if char in ("", "\n"):
                self._text(self._source.take(len(char)))
                return bool(char)
            if char == "`":
                ticks = yield from self._source.run(_FENCES[char])
                self._text(ticks)
                span = len(ticks) if span == 0 else 0 if span == len(ticks) else span
                continue
            marker = yield from self._anywhere.marker(self._source)
            if not marker:
                self._text(self._source.take(1))
            elif span > 0 and (yield from self._span_closes(span)):
                span = 0
            else:
                span = -1
                if (yield from self._attempt(marker, self._anywhere.of(marker), self._marked_calls())):
                    return True

    def _span_closes(self, ticks: int) -> Reading[bool]:
        """Returns True if the code span around this place closes, or the text was cut before it could."""
        # A span ends with its line, so that a lone backtick hides no call. Only a span that begins at the call may
        # continue on other lines.
        over_lines = self._tail.endswith("`")
        self._source.mark()
        while True:
            yield from self._source.run(_IN_SPAN)
            closing = yield from self._source.run(_FENCES["`"])
            if over_lines and not closing and (yield from self._next_line()):
                continue
            broke_off = self._source.truncated and not (yield from self._source.peek())
            if len(closing) == ticks or broke_off:
                self._text(self._source.marked)
                self._source.unmark()
                return True
            if not closing:
                self._source.rewind()
                self._source.unmark()
                return False

    def _next_line(self) -> Reading[bool]:
        if not (yield from self._source.skip("\n")):
            return False
        yield from self._source.run(BLANK)
        return (yield from self._source.peek()) not in ("", "\n")

    def _fenced(self, fence: str) -> Reading[None]:
        """Reads a call if the block holds nothing else, or code up to the closing fence."""
        openings = self._fence.of(fence)
        if openings and not self._after_example():
            calls = self._unmarked_calls()
            attempt = calls.attempt()
            read = yield from self._read(openings[0], fence, attempt)
            if read or attempt.settled:
                self._finish(attempt, calls)
            else:
                self._source.rewind()
                self._source.unmark()
            if read:
                return
        opening = yield from self._source.run(_FENCES[fence[0]])
        self._text(opening)
        yield from self._code(_FENCES[fence[0]], max(len(opening), len(fence)))

    def _code(self, fence: re.Pattern[str], size: int) -> Reading[None]:
        while True:
            yield from self._pass(_LINE)
            if not (yield from self._source.peek()):
                return
            self._text(self._source.take(1))
            yield from self._pass(BLANK)
            closing = yield from self._source.run(fence)
            self._text(closing)
            if len(closing) >= size:
                yield from self._pass(BLANK)
                if (yield from self._source.peek()) in ("", "\n"):
                    return

    def _thought(self, end: str) -> Reading[None]:
        inside = re.compile(f"[^{re.escape(end[0])}]*")
        while True:
            yield from self._pass(inside)
            found = yield from self._source.which((end,))
            self._text(self._source.take(len(found) or 1))
            if found or not (yield from self._source.peek()):
                return

    def _attempt(self, marker: str, openings: Sequence[Opening], calls: Calls) -> Reading[bool]:
        """Returns True if one of `openings` reads a call here. If not, the text up to the farthest failure is content
        and is not scanned again."""
        farthest = 0
        cut = self._calls.counts.cut
        for opening in openings:
            attempt = calls.attempt()
            read = yield from self._read(opening, marker, attempt)
            if read or attempt.settled:
                self._finish(attempt, calls)
                return read
            farthest = max(farthest, self._source.rewind())
        self._source.unmark()
        self._calls.counts.cut = min(self._calls.counts.cut, cut + 1)
        self._text(self._source.take(farthest))
        return False

    def _read(self, opening: Opening, marker: str, attempt: CallAttempt) -> Reading[bool]:
        if opening.consumed:
            self._source.take(len(marker))
        try:
            yield from opening.read(self._source, attempt)
        except NotACall as failure:
            attempt.fail(cut=isinstance(failure, Cut))
            return False
        return True

    def _finish(self, attempt: CallAttempt, calls: Calls) -> None:
        attempt.finish()
        if calls is self._trial and calls.said_text:
            self._forget_trial()

    def _text(self, text: str) -> None:
        if self._trial is not None:
            if text.strip():
                self._forget_trial()
            else:
                self._trial.consume(text)
                return
        self._tail = (self._tail + text)[-200:]
        self._calls.text(text)

    def _pass(self, pattern: re.Pattern[str]) -> Reading[None]:
        while True:
            self._text(self._source.take_while(pattern))
            char = yield from self._source.peek()
            if not char or not pattern.fullmatch(char):
                return

    def _marked_calls(self) -> Calls:
        self._forget_trial()
        return self._calls

    def _unmarked_calls(self) -> Calls:
        """Returns the output for calls that could be ordinary text. If text precedes them, they count only at the
        end."""
        if self._trial is None and not self._calls.said_text:
            return self._calls
        if self._trial is None:
            self._trial = self._calls.trial()
        return self._trial

    def _forget_trial(self) -> None:
        if self._trial is not None:
            forgotten, self._trial = self._trial, None
            self._calls.text(forgotten.consumed)

    def _after_example(self) -> bool:
        lines = self._tail.rstrip().lower().rsplit("\n", 1)
        return any(word in lines[-1] for word in EXAMPLE_WORDS)

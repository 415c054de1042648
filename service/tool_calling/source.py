"""Readers are generators that yield when they need more text. Their result does not depend on how the text is split:
methods that look ahead wait until later text can no longer change their result."""

import re
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]

SPACE = re.compile(r"[ \t\r\n]*")
BLANK = re.compile(r"[ \t]*")


class NotACall(Exception): ...


class Malformed(NotACall): ...


class Cut(NotACall):
    """The text ended inside a possible call."""


class Source:
    """Consumed text is copied at most once more. `truncated`: the model did not end its text itself."""

    def __init__(self) -> None:
        self.ended = False
        self.truncated = False
        self._text = ""
        self._at = 0
        self._mark: int | None = None
        self._before: list[str] = []  # text consumed since the mark that has left the buffer

    def feed(self, text: str) -> None:
        if self._mark is not None:
            self._before.append(self._text[self._mark : self._at])
            self._mark = 0
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self, *, truncated: bool) -> None:
        self.ended = True
        self.truncated = truncated

    def take(self, count: int) -> str:
        """The `count` characters must be in the buffer."""
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def take_while(self, pattern: re.Pattern[str]) -> str:
        """Consumes the buffered part of a run. `pattern` is one character class with a star."""
        match = pattern.match(self._text, self._at)
        return self.take(match.end() - self._at) if match else ""

    def run(self, pattern: re.Pattern[str]) -> Reading[str]:
        pieces = [self.take_while(pattern)]
        while self._at == len(self._text) and not self.ended:
            yield
            pieces.append(self.take_while(pattern))
        return "".join(pieces)

    def peek(self, count: int = 1) -> Reading[str]:
        """Returns the next `count` characters; fewer only at the end."""
        while len(self._text) - self._at < count and not self.ended:
            yield
        return self._text[self._at : self._at + count]

    def which(self, literals: tuple[str, ...]) -> Reading[str]:
        """Returns the longest of `literals` that comes next, or ""."""
        size = 0
        found = ""
        while literals:
            size += 1
            seen = yield from self.peek(size)
            literals = tuple(literal for literal in literals if literal.startswith(seen)) if len(seen) == size else ()
            if seen in literals:
                found = seen
                literals = tuple(literal for literal in literals if literal != seen)
        return found

    def skip(self, *literals: str) -> Reading[bool]:
        found = yield from self.which(tuple(filter(None, literals)))
        self.take(len(found))
        return bool(found)

    def expect(self, *literals: str) -> Reading[None]:
        if not (yield from self.skip(*literals)):
            yield from self.refuse()

    def refuse(self) -> Reading[None]:
        """Raises `Cut` at the end of the text, else `Malformed`."""
        raise Malformed if (yield from self.peek()) else Cut

    def mark(self) -> None:
        self._mark = self._at
        self._before.clear()

    def unmark(self) -> None:
        self._mark = None
        self._before.clear()

    @property
    def marked(self) -> str:
        return "".join((*self._before, self._text[self._mark : self._at])) if self._mark is not None else ""

    def rewind(self) -> int:
        """Returns the number of characters given back."""
        here = self._at
        if self._before:
            before = "".join(self._before)
            self._text = before + self._text
            here += len(before)
            self._before.clear()
        self._at = self._mark or 0
        return here - self._at

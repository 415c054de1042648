from collections.abc import Iterable


class StringFinder:
    """Finds the string that ends first, the longest of equals. Holds back only text that may become one. Linear (Knuth,
    Morris and Pratt 1977)."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = [(string, _borders(string)) for string in sorted(strings, key=len, reverse=True) if string]
        self._matched = [0] * len(self._strings)
        self._held = ""
        self.found: str | None = None

    @property
    def held(self) -> str:
        return self._held

    def feed(self, text: str) -> tuple[str, str]:
        """Returns the text to pass on and, once a string is `found`, the text after it."""
        pending = self._held + text
        for position in range(len(self._held), len(pending)):
            found = self._advance(pending[position])
            if found is not None:
                self.found = found
                self._held = ""
                self._matched = [0] * len(self._strings)
                return pending[: position + 1 - len(found)], pending[position + 1 :]
        keep = max(self._matched, default=0)
        released, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        return released, ""

    def finish(self) -> str:
        held, self._held = self._held, ""
        self._matched = [0] * len(self._strings)
        return held

    def _advance(self, character: str) -> str | None:
        found = None
        for i, (string, borders) in enumerate(self._strings):
            matched = self._matched[i]
            while matched and string[matched] != character:
                matched = borders[matched - 1]
            if string[matched] == character:
                matched += 1
            if matched == len(string):
                found = found or string
                matched = borders[matched - 1]
            self._matched[i] = matched
        return found


def _borders(string: str) -> list[int]:
    """Returns the length of each prefix's longest proper suffix that is also a prefix."""
    borders = [0] * len(string)
    length = 0
    for i in range(1, len(string)):
        while length and string[i] != string[length]:
            length = borders[length - 1]
        if string[i] == string[length]:
            length += 1
        borders[i] = length
    return borders

"""Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). Places of each n-gram are
chained, newest first, as in deflate (RFC 1951, section 4)."""

from array import array

# The shortest suffix to look up. Two tokens repeat nearly everywhere in code.
NGRAM = 3

# Places compared per lookup, so that a token costs the same in a long text.
CANDIDATES = 8

# The longest suffix to compare.
LONGEST_MATCH = 16

# Guesses behind longer matches are right more often.
LONGER_MATCHES = (6, 12)

# A text that differs behind a match this long is taken for an edited copy: after one other token, or from one of the
# next tokens on, it may go on as before.
COPIED_TOKENS = 6
NEAR_TOKENS = 16


class PromptLookup:
    """Follows its present place, else finds the one with the longest common suffix, the nearest of equals, or goes on
    behind an edit. A token takes constant time and 100 to 200 bytes."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens: list[int] = []
        self._newest: dict[tuple[int, ...], int] = {}
        self._older = array("q")
        self._left_at = 0
        self._edited_at, self._near_until = 0, 0
        self._append(tokens)
        # `_agreed` tokens before `_place` equal the last ones of the text.
        self._place, self._agreed = self._find()

    def can_draft(self) -> bool:
        return self._place is not None

    def basis(self) -> int:
        return sum(self._agreed >= longer for longer in (NGRAM, *LONGER_MATCHES))

    def draft(self, at_most: int) -> list[int]:
        if self._place is None:
            return []
        known = self._tokens[self._place : self._place + at_most]
        repeats = -(-at_most // len(known))
        return (known * repeats)[:at_most]

    def follow(self, tokens: list[int]) -> None:
        for token in tokens:
            place, agreed = self._place, self._agreed
            self._append([token])
            if place is not None and self._tokens[place] == token:
                self._place, self._agreed = place + 1, agreed + 1
                continue
            if place is not None:
                self._left_at = place
            self._place, self._agreed = self._find()
            if self._place is None:
                self._place = self._resume(token, was_copy=agreed >= COPIED_TOKENS)
            else:
                self._near_until = 0

    def _append(self, tokens: list[int]) -> None:
        known, newest, older = self._tokens, self._newest, self._older
        for token in tokens:
            end = len(known)
            known.append(token)
            if end < NGRAM:
                older.append(-1)
                continue
            ngram = tuple(known[end - NGRAM : end])
            older.append(newest.get(ngram, -1))
            newest[ngram] = end

    def _find(self) -> tuple[int | None, int]:
        end = len(self._tokens)
        place = self._newest.get(tuple(self._tokens[end - NGRAM :]), -1) if end >= NGRAM else -1
        best, longest = None, 0
        for _ in range(CANDIDATES):
            if place < 0:
                break
            match = self._match(place)
            nearer = best is None or abs(place - self._left_at) < abs(best - self._left_at)
            if match > longest or (match == longest and nearer):
                best, longest = place, match
            place = self._older[place]
        return best, longest

    def _match(self, place: int) -> int:
        """Returns the number of tokens before `place` that equal those at the end."""
        tokens, end = self._tokens, len(self._tokens)
        length = NGRAM
        while length < min(LONGEST_MATCH, place) and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        return length

    def _resume(self, token: int, *, was_copy: bool) -> int | None:
        end = len(self._tokens)
        if was_copy:
            self._edited_at, self._near_until = self._left_at, end + NEAR_TOKENS
            return self._left_at + 1
        if end > self._near_until:
            return None
        near = self._tokens[self._edited_at : min(self._edited_at + NEAR_TOKENS, end - 1)]
        return self._edited_at + near.index(token) + 1 if token in near else None

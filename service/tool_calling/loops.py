import logging
from collections import deque
from collections.abc import Sequence

from service.generation import Message
from service.tallies import CallTally

log = logging.getLogger(__name__)

# Equal calls with equal results in a row.
SAME_CALLS = 5
# Equal runs of tokens in one answer.
REPEATED_TOKENS, REPETITIONS = 40, 10

_BASE, _MODULUS = 1_000_003, (1 << 61) - 1
_TOP = pow(_BASE, REPEATED_TOKENS, _MODULUS)


def same_calls_in_a_row(messages: Sequence[Message]) -> int:
    """Returns the number of equal turns with calls and results at the end."""
    turns: list[tuple[object, ...]] = []
    results: list[str] = []
    for message in reversed(messages):
        if message.role == "tool":
            results.append(message.content)
        elif message.tool_calls:
            turn = (*((call.name, call.arguments) for call in message.tool_calls), *results)
            if turns and turn != turns[0]:
                break
            turns.append(turn)
            results = []
        elif message.role == "user":
            break
    return len(turns)


class LoopGuard:
    """Logs and counts repeated calls in a conversation and repeated tokens in its answer. `ended` becomes true at a
    loop in the answer, if the guard `ends` answers."""

    def __init__(self, messages: Sequence[Message], tally: CallTally, *, ends: bool) -> None:
        self.ended = False
        self._tally = tally
        self._ends = ends
        self._last: deque[int] = deque(maxlen=REPEATED_TOKENS + 1)
        self._hash = 0
        self._seen: dict[int, int] = {}
        self._found = False
        if (calls := same_calls_in_a_row(messages)) >= SAME_CALLS:
            tally.repeated += 1
            log.warning("The model made the same call with the same result %d times in a row.", calls)

    def feed(self, token: int) -> None:
        self._last.append(token)
        self._hash = (self._hash * _BASE + token + 1) % _MODULUS
        if len(self._last) > REPEATED_TOKENS:
            self._hash = (self._hash - (self._last[0] + 1) * _TOP) % _MODULUS
        if self._found or len(self._last) < REPEATED_TOKENS:
            return
        count = self._seen[self._hash] = self._seen.get(self._hash, 0) + 1
        if count >= REPETITIONS:
            self._found, self.ended = True, self._ends
            self._tally.looping += 1
            log.warning("The model wrote the same %d tokens %d times in one answer.", REPEATED_TOKENS, REPETITIONS)

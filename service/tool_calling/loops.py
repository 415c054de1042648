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
    """Returns the number of equal turns with calls and results at the end. A user's text right behind results, such as
    an agent's reminder, is no new turn."""
    turns: list[tuple[object, ...]] = []
    results: list[str] = []
    for i, message in reversed(list(enumerate(messages))):
        if message.role == "tool":
            results.append(message.content)
        elif message.tool_calls:
            turn = (*((call.name, call.arguments) for call in message.tool_calls), *results)
            if turns and turn != turns[0]:
                break
            turns.append(turn)
            results = []
        elif message.role == "user" and (i == 0 or messages[i - 1].role != "tool"):
            break
    return len(turns)


class LoopGuard:
    """Logs and counts repeated calls in a conversation and repeated tokens in its answer. If the guard `ends` answers,
    `ended` becomes true at a loop, and `refusal` is the answer to a loop of calls."""

    def __init__(self, messages: Sequence[Message], tally: CallTally, *, ends: bool) -> None:
        self.ended = False
        self.refusal = ""
        self._tally = tally
        self._ends = ends
        self._last: deque[int] = deque(maxlen=REPEATED_TOKENS + 1)
        self._hash = 0
        self._fed = 0
        self._seen: dict[int, tuple[int, int]] = {}  # by hash: how often, and after which token the last time
        self._found = False
        if (calls := same_calls_in_a_row(messages)) >= SAME_CALLS:
            tally.repeated += 1
            log.warning("The model made the same call with the same result %d times in a row.", calls)
            if ends:
                self.ended = True
                self.refusal = f"The same call has had the same result {calls} times in a row, so I stop here."

    def feed(self, token: int) -> None:
        self._fed += 1
        self._last.append(token)
        self._hash = (self._hash * _BASE + token + 1) % _MODULUS
        if len(self._last) > REPEATED_TOKENS:
            self._hash = (self._hash - (self._last[0] + 1) * _TOP) % _MODULUS
        if self._found or len(self._last) < REPEATED_TOKENS:
            return
        count, place = self._seen.get(self._hash, (0, -REPEATED_TOKENS))
        if self._fed - place < REPEATED_TOKENS:  # it overlaps: a row of equal tokens is no loop yet
            return
        self._seen[self._hash] = count + 1, self._fed
        if count + 1 >= REPETITIONS:
            self._found, self.ended = True, self._ends
            self._tally.looping += 1
            log.warning("The model wrote the same %d tokens %d times in one answer.", REPEATED_TOKENS, REPETITIONS)

import logging
from typing import Any, Protocol

import msgspec

from service.executor.prefix.file import SpanKey
from service.executor.prefix.outline import outline
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.tree import Match, Node, PrefixTree
from service.executor.scheduling.messages import Prompt
from service.queries import PrefixBranch
from service.tallies import StateTally

log = logging.getLogger(__name__)

# The longest span. The end of an old conversation can be dropped without its system prompt, and a file is written
# quickly.
SPAN_TOKENS = 512

# A template puts about this many tokens between the last message and the answer.
NEAR_TOKENS = 16


class States(Protocol):
    @property
    def cuts_anywhere(self) -> bool:
        """True if a state can be cut to any of its tokens."""
        ...

    def capture(self, caches: list[Any], start: int, end: int) -> Any: ...
    def restore(self, parts: list[tuple[Any, int]]) -> list[Any]: ...


class Reuse(msgspec.Struct, frozen=True):
    """`caches` have read `length` tokens; None if no prefix is known."""

    caches: list[Any] | None = None
    length: int = 0


class Prefixes(Protocol):
    """The MLX thread calls it. No method raises: a failure costs time, not an answer."""

    @property
    def changes(self) -> int:
        """Rises with each state that is added."""
        ...

    @property
    def tally(self) -> StateTally: ...

    @property
    def shares(self) -> bool: ...

    @property
    def needs_boundaries(self) -> bool:
        """True if prompts must name the ends of messages, where states are kept."""
        ...

    @property
    def nbytes(self) -> int: ...

    def stops(self, prompt: Prompt) -> list[int]:
        """Returns the token counts after which the state is wanted, rising."""
        ...

    def find(self, caller: str, tokens: list[int]) -> Reuse:
        """Returns the longest known prefix that leaves a token to read."""
        ...

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        """`caches` have read `tokens`. Returns how many tokens are new."""
        ...

    def conclude(self, caller: str, tokens: list[int], stops: list[int]) -> None:
        """Drops states that the conversation's next turn cannot use. `tokens` are the prompt and answer of its last
        turn, with states kept at `stops`."""
        ...

    def set_headroom(self, headroom: int) -> None:
        """Limits memory to `headroom` bytes above the present use, or below it if negative."""
        ...

    def learn_reading(self, tokens: int, seconds: float) -> None:
        """Takes in the time in which the model read tokens of a prompt."""
        ...

    def file_tokens(self, fixed: int, per_token: int) -> int | None: ...

    def outline(self) -> list[PrefixBranch]: ...

    def rest(self, resting: bool) -> None: ...

    def close(self) -> None: ...


class NoPrefixCache:
    shares = False
    needs_boundaries = False
    nbytes = 0

    def __init__(self) -> None:
        self.changes = 0
        self.tally = StateTally()

    def stops(self, prompt: Prompt) -> list[int]:
        return []

    def find(self, caller: str, tokens: list[int]) -> Reuse:
        return Reuse()

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        return 0

    def conclude(self, caller: str, tokens: list[int], stops: list[int]) -> None:
        return None

    def set_headroom(self, headroom: int) -> None:
        return None

    def learn_reading(self, tokens: int, seconds: float) -> None:
        return None

    def file_tokens(self, fixed: int, per_token: int) -> int | None:
        return None

    def outline(self) -> list[PrefixBranch]:
        return []

    def rest(self, resting: bool) -> None:
        return None

    def close(self) -> None:
        return None


class PrefixCache:
    """Holds at most `memory_bytes`. `store` keeps states over a restart. Callers never share states."""

    shares = True

    def __init__(self, states: States, memory_bytes: int, store: PrefixStore | None = None) -> None:
        self.changes = 0
        self.tally = StateTally()
        self._states = states
        self._memory_bytes = memory_bytes
        self._tree = PrefixTree(memory_bytes, cuts_anywhere=states.cuts_anywhere)
        self._store = store
        if store is not None:
            self._adopt(store)

    @property
    def needs_boundaries(self) -> bool:
        return not self._states.cuts_anywhere

    @property
    def nbytes(self) -> int:
        return self._tree.nbytes

    def stops(self, prompt: Prompt) -> list[int]:
        # States that can be cut are useful anywhere. Others are kept at the ends of messages, and before the prompt's
        # last token, where another answer to the same prompt begins.
        if self._states.cuts_anywhere:
            return []
        last = len(prompt.tokens) - 1
        return sorted({stop for stop in (*prompt.boundaries, last) if 0 < stop <= last})

    def find(self, caller: str, tokens: list[int]) -> Reuse:
        try:
            return self._find(caller, tokens)
        except Exception:
            log.exception("The prefix cache cannot be read; the prompt is read from its beginning")
            return Reuse()

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        try:
            return self._keep(caller, tokens, caches)
        except Exception:
            log.exception("The prefix cache cannot take a state of %d tokens", len(tokens))
            return 0

    def conclude(self, caller: str, tokens: list[int], stops: list[int]) -> None:
        self.tally.turns += 1
        if not self._states.cuts_anywhere:
            self._collect_writes()
            before = self._tree.nbytes
            self._forget(self._tree.drop_between(caller, tokens, _wanted(stops)))
            self.tally.kept_bytes -= before - self._tree.nbytes

    def set_headroom(self, headroom: int) -> None:
        self._collect_writes()
        if self._store is not None:
            self._store.set_headroom(headroom)
        self._tree.max_bytes = max(0, min(self._memory_bytes, self._tree.nbytes + headroom))
        self._shrink()

    def learn_reading(self, tokens: int, seconds: float) -> None:
        if self._store is not None:
            self._store.learn_reading(tokens, seconds)

    def file_tokens(self, fixed: int, per_token: int) -> int | None:
        return None if self._store is None else self._store.least_tokens(fixed, per_token)

    def outline(self) -> list[PrefixBranch]:
        try:
            return outline(self._tree.roots(), self._store.file_bytes if self._store is not None else lambda _: 0)
        except Exception:
            log.exception("The prefix cache cannot be outlined")
            return []

    def rest(self, resting: bool) -> None:
        if self._store is not None:
            self._store.rest(resting)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _find(self, caller: str, tokens: list[int]) -> Reuse:
        self._collect_writes()
        match, path = self._loaded(caller, tokens)
        self._log_divergence(match, len(tokens))
        if match.length == 0:
            return Reuse()
        self._use(match.node)
        ends = [node.start for node in path[1:]] + [match.length]
        parts = [(node.state, end - node.start) for node, end in zip(path, ends, strict=True)]
        reuse = Reuse(self._states.restore(parts), match.length)
        self._shrink()
        return reuse

    def _keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        self._collect_writes()
        match = self._tree.find(caller, tokens, len(tokens))
        self._use(match.node)
        if match.length == len(tokens):
            return 0
        if not self._states.cuts_anywhere:
            # Each state covers all tokens before it and needs no other state.
            self._add(self._tree.root(caller), 0, tokens, caches)
            return len(tokens) - match.length
        node, end = match.node, match.length
        while end < len(tokens) and not node.removed:
            start, end = end, min(end + SPAN_TOKENS, len(tokens))
            node = self._add(node, start, tokens[:end], caches)
        return (start if node.removed else end) - match.length

    def _add(self, parent: Node, start: int, tokens: list[int], caches: list[Any]) -> Node:
        state = self._states.capture(caches, start, len(tokens))
        node = self._tree.add(parent, start, tuple(tokens[start:]), state, state.nbytes)
        self.changes += 1
        self.tally.kept_bytes += state.nbytes
        self._save([node])
        self._shrink()  # after each span, so that a long prompt's state is never held twice
        return node

    def _loaded(self, caller: str, tokens: list[int]) -> tuple[Match, list[Node]]:
        while True:
            match = self._longest(caller, tokens)
            path = match.node.path()
            unreadable = next((node for node in path if node.state is None and not self._load(node)), None)
            if unreadable is None:
                return match, path
            self._forget(self._tree.remove(unreadable))

    def _longest(self, caller: str, tokens: list[int]) -> Match:
        # The last token is always read alone. Of two, the first would be alone too, while without the prefix cache it
        # is read with others. A product of one row differs in its last bits from a row of a larger product.
        match = self._tree.find(caller, tokens, len(tokens) - 1)
        if self._states.cuts_anywhere and match.length == len(tokens) - 2:
            return self._tree.find(caller, tokens, len(tokens) - 3)
        return match

    def _load(self, node: Node) -> bool:
        state = self._store.load(node) if self._store is not None else None
        if state is None:
            return False
        self._tree.fill(node, state, state.nbytes)
        return True

    def _use(self, node: Node) -> None:
        needed = node.path() if self._states.cuts_anywhere else self._tree.beginnings(node)
        for used in reversed(needed):
            self._tree.touch(used)
        self._save(needed)

    def _save(self, path: list[Node]) -> None:
        if self._store is not None:
            self._store.save(path)

    def _shrink(self) -> None:
        self._forget(self._tree.shrink())

    def _collect_writes(self) -> None:
        if self._store is not None:
            for node in self._store.collect_writes():
                self._forget(self._tree.remove(node))

    def _forget(self, removed: list[Node]) -> None:
        if self._store is not None:
            self._store.discard(removed)

    def _adopt(self, store: PrefixStore) -> None:
        nodes: dict[str, Node] = {}
        for span in store.stored():
            key = span.key
            parent = nodes.get(key.parent) if key.parent else self._tree.root(key.caller)
            if parent is None or not _fits(parent, key):
                store.delete(span.name)
                continue
            nodes[span.name] = node = self._tree.add(parent, key.start, key.tokens, None, 0)
            store.adopt(node, span)

    def _log_divergence(self, match: Match, length: int) -> None:
        if match.diverges:
            log.debug(
                "A prompt of %d tokens differs from a recent one at index %d; %d of its tokens are known",
                length,
                match.shared,
                match.length,
            )


def _fits(parent: Node, key: SpanKey) -> bool:
    return parent.caller == key.caller and parent.start <= key.start <= parent.end and bool(key.tokens)


def _wanted(stops: list[int]) -> set[int]:
    *messages, last = stops or [0]
    near = bool(messages) and last - messages[-1] <= NEAR_TOKENS
    return {*messages} if near else {*messages, last}

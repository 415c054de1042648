"""The prefix cache: the model's state after runs of tokens, so that a prompt is read from where it differs.

Lives on the engine's thread, as the engine does. Callers never see each other's states: each has a tree of their own.
"""

import logging
from typing import Any, Protocol

import msgspec

from service.executor.prefix.file import RunKey
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.tree import Match, Node, PrefixTree
from service.executor.scheduling.messages import Prompt

log = logging.getLogger(__name__)

RUN_TOKENS = 512
"""The longest run: small enough that the end of an old conversation goes without its system prompt, and that a file is
written in a moment."""


class Caches(Protocol):
    """The model's side, as `state.PromptCaches` implements it. `cuts_anywhere`: a state can be cut to any of its
    tokens."""

    @property
    def cuts_anywhere(self) -> bool: ...
    def capture(self, caches: list[Any], start: int, end: int) -> Any: ...
    def restore(self, parts: list[tuple[Any, int]]) -> list[Any]: ...


class Reuse(msgspec.Struct, frozen=True):
    """Prompt caches that have read `length` tokens; None where nothing is known."""

    caches: list[Any] | None = None
    length: int = 0


class Prefixes(Protocol):
    """What the engine knows of a prefix cache. Only its thread calls it. Nothing raises: what fails costs time, and
    no answer. `shares`: what one sequence has read is there for the next. `needs_boundaries`: it has to be told where
    messages end, because states are of use only where they were kept."""

    @property
    def shares(self) -> bool: ...
    @property
    def needs_boundaries(self) -> bool: ...
    @property
    def nbytes(self) -> int:
        """What is held in memory."""
        ...

    def stops(self, prompt: Prompt) -> list[int]:
        """Numbers of tokens after which the state of the prompt is wanted, rising."""
        ...

    def find(self, caller: str, tokens: list[int]) -> Reuse:
        """The state of the longest known prefix. At least one token is left to be read: what follows it is wanted."""
        ...

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        """Adds what is new of `caches`, which have read `tokens`. Returns how many tokens that is."""
        ...

    def allow(self, more: int) -> None:
        """From now on at most so many bytes more than now may be held, and at most those that are set; where `more` is
        negative, memory is freed."""
        ...

    def rest(self, resting: bool) -> None:
        """Tells when nothing is being computed: a good time to write files."""
        ...

    def close(self) -> None: ...


class NoPrefixCache:
    """Every prompt is read from its beginning."""

    shares = False
    needs_boundaries = False
    nbytes = 0

    def stops(self, prompt: Prompt) -> list[int]:
        return []

    def find(self, caller: str, tokens: list[int]) -> Reuse:
        return Reuse()

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        return 0

    def allow(self, more: int) -> None:
        return None

    def rest(self, resting: bool) -> None:
        return None

    def close(self) -> None:
        return None


class PrefixCache:
    """At most `memory_bytes` of states in memory; `store` keeps them over a restart."""

    shares = True

    def __init__(self, caches: Caches, memory_bytes: int, store: PrefixStore | None = None) -> None:
        self._caches = caches
        self._memory_bytes = memory_bytes
        self._tree = PrefixTree(memory_bytes, cuts_anywhere=caches.cuts_anywhere)
        self._store = store
        if store is not None:
            self._adopt(store)

    @property
    def needs_boundaries(self) -> bool:
        return not self._caches.cuts_anywhere

    @property
    def nbytes(self) -> int:
        return self._tree.nbytes

    def stops(self, prompt: Prompt) -> list[int]:
        """Where states can be cut, none: any will do. Else the ends of messages, and of the prompt but for its last
        token, with which another answer to the same prompt begins."""
        if self._caches.cuts_anywhere:
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

    def allow(self, more: int) -> None:
        self._settle()
        if self._store is not None:
            self._store.allow(more)
        self._tree.max_bytes = max(0, min(self._memory_bytes, self._tree.nbytes + more))
        self._shrink()

    def rest(self, resting: bool) -> None:
        if self._store is not None:
            self._store.rest(resting)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _find(self, caller: str, tokens: list[int]) -> Reuse:
        self._settle()
        match, path = self._loaded(caller, tokens)
        self._log_divergence(match, len(tokens))
        if match.length == 0:
            return Reuse()
        self._use(match.node)
        ends = [node.start for node in path[1:]] + [match.length]
        parts = [(node.state, end - node.start) for node, end in zip(path, ends, strict=True)]
        reuse = Reuse(self._caches.restore(parts), match.length)
        self._shrink()
        return reuse

    def _keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        self._settle()
        match = self._tree.find(caller, tokens, len(tokens))
        node, end = match.node, match.length
        self._use(node)
        while end < len(tokens):
            start, end = end, min(end + RUN_TOKENS, len(tokens)) if self._caches.cuts_anywhere else len(tokens)
            state = self._caches.capture(caches, start, end)
            node = self._tree.add(node, start, tuple(tokens[start:end]), state, state.nbytes)
            self._save([node])
            self._shrink()  # after each run: the state of a long prompt is never there twice
            if node.removed:
                return start - match.length
        return end - match.length

    def _loaded(self, caller: str, tokens: list[int]) -> tuple[Match, list[Node]]:
        """The longest match whose states are all in memory, after what is on disk has been read."""
        while True:
            match = self._longest(caller, tokens)
            path = match.node.path()
            unreadable = next((node for node in path if node.state is None and not self._load(node)), None)
            if unreadable is None:
                return match, path
            self._forget(self._tree.remove(unreadable))

    def _longest(self, caller: str, tokens: list[int]) -> Match:
        """The last token is read alone in any case. One token before it would be alone, too, where without the prefix
        cache it has company; and the product of one row differs in its last bits from its part of a larger product."""
        match = self._tree.find(caller, tokens, len(tokens) - 1)
        if self._caches.cuts_anywhere and match.length == len(tokens) - 2:
            return self._tree.find(caller, tokens, len(tokens) - 3)
        return match

    def _load(self, node: Node) -> bool:
        state = self._store.load(node) if self._store is not None else None
        if state is None:
            return False
        self._tree.fill(node, state, state.nbytes)
        return True

    def _use(self, node: Node) -> None:
        self._tree.touch(node)
        self._save(node.path())

    def _save(self, path: list[Node]) -> None:
        if self._store is not None:
            self._store.save(path)

    def _shrink(self) -> None:
        self._forget(self._tree.shrink())

    def _settle(self) -> None:
        """Takes in what the store has done meanwhile."""
        if self._store is not None:
            for node in self._store.settle():
                self._forget(self._tree.remove(node))

    def _forget(self, removed: list[Node]) -> None:
        if self._store is not None:
            self._store.discard(removed)

    def _adopt(self, store: PrefixStore) -> None:
        """Puts the runs on disk into the tree, parents first; a run whose parent is gone is of no use."""
        nodes: dict[str, Node] = {}
        for run in store.stored():
            key = run.key
            parent = nodes.get(key.parent) if key.parent else self._tree.root(key.caller)
            if parent is None or not _fits(parent, key):
                store.delete(run.name)
                continue
            nodes[run.name] = node = self._tree.add(parent, key.start, key.tokens, None, 0)
            store.adopt(node, run)

    def _log_divergence(self, match: Match, length: int) -> None:
        if match.diverges:
            log.debug(
                "A prompt of %d tokens differs from a recent one at index %d; %d of its tokens are known",
                length,
                match.shared,
                match.length,
            )


def _fits(parent: Node, key: RunKey) -> bool:
    return parent.caller == key.caller and parent.start <= key.start <= parent.end and bool(key.tokens)

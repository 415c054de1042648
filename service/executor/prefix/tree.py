from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec


class Node:
    """The tokens `[start, end)` after those of its ancestors; it may begin inside its parent's span. `state` is None if
    not in memory, `file` is empty if not on disk. A root has no parent and no tokens."""

    __slots__ = (
        "caller",
        "children",
        "file",
        "nbytes",
        "parent",
        "removed",
        "start",
        "state",
        "tokens",
    )

    def __init__(self, parent: "Node | None", start: int, tokens: tuple[int, ...], caller: str) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.caller = caller
        self.children: dict[tuple[int, int], list[Node]] = {}
        self.state: Any = None
        self.nbytes = 0
        self.file = ""
        self.removed = False

    def __repr__(self) -> str:
        return f"<Node [{self.start}, {self.end}) nbytes={self.nbytes} file={self.file!r}>"

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def key(self) -> tuple[int, int]:
        return self.start, self.tokens[0]

    @property
    def siblings(self) -> list["Node"]:
        return [] if self.parent is None else self.parent.children[self.key]

    def path(self) -> list["Node"]:
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def subtree(self) -> Iterator["Node"]:
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield node
            nodes.extend(child for siblings in node.children.values() for child in siblings)


class Match(msgspec.Struct, frozen=True):
    """`length` tokens are usable. `shared` tokens are known, but may have no usable state. `diverges`: known tokens
    differ after `shared`."""

    node: Node
    length: int
    shared: int
    diverges: bool


class PrefixTree:
    """Holds each span once, and at most `max_bytes` in memory. Evicts the least recently used, and a child before its
    parent. If `cuts_anywhere` is false, a state can be reused only whole."""

    def __init__(self, max_bytes: int, *, cuts_anywhere: bool) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._cuts_anywhere = cuts_anywhere
        self._roots: dict[str, Node] = {}
        self._used: OrderedDict[Node, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PrefixTree {len(self._used)} states, {self.nbytes} of {self.max_bytes} bytes>"

    def __iter__(self) -> Iterator[Node]:
        for root in self._roots.values():
            for node in root.subtree():
                if node.parent is not None:
                    yield node

    def roots(self) -> list[Node]:
        return list(self._roots.values())

    def root(self, caller: str) -> Node:
        root = self._roots.get(caller)
        if root is None:
            root = self._roots[caller] = Node(None, 0, (), caller)
        return root

    def find(self, caller: str, tokens: list[int], limit: int) -> Match:
        """Returns the longest usable prefix of at most `limit` tokens."""
        prompt = tuple(tokens)
        root = self.root(caller)
        best, shared, diverges = (root, 0), 0, False
        open_nodes = [root]
        while open_nodes:
            node = open_nodes.pop()
            common = node.start + common_length(node.tokens, prompt[node.start : node.end])
            usable = min(common, limit) if self._cuts_anywhere else node.end
            if best[1] < usable <= min(common, limit):
                best = (node, usable)
            if common > shared or node is root:
                shared, diverges = common, common < min(node.end, len(tokens))
            if common < len(tokens) and (self._cuts_anywhere or common == node.end):
                open_nodes += node.children.get((common, tokens[common]), ())
                diverges |= common == shared and bool(node.children)
        return Match(best[0], best[1], shared, diverges)

    def add(self, parent: Node, start: int, tokens: tuple[int, ...], state: Any, nbytes: int) -> Node:
        node = Node(parent, start, tokens, parent.caller)
        parent.children.setdefault(node.key, []).append(node)
        if state is not None:
            self.fill(node, state, nbytes)
        return node

    def fill(self, node: Node, state: Any, nbytes: int) -> None:
        self.empty(node)
        node.state, node.nbytes = state, nbytes
        self.nbytes += nbytes
        self._used[node] = None
        self.touch(node)

    def empty(self, node: Node) -> None:
        if node.state is not None:
            self.nbytes -= node.nbytes
            node.state, node.nbytes = None, 0
            del self._used[node]

    def touch(self, node: Node) -> None:
        for used in reversed(node.path()):
            if used.state is not None:
                self._used.move_to_end(used)

    def beginnings(self, node: Node) -> list[Node]:
        """Returns the siblings whose tokens are a prefix of `node`'s, itself included, the shortest first."""
        found = [each for each in node.siblings if each.tokens == node.tokens[: len(each.tokens)]]
        return sorted(found, key=lambda each: each.end)

    def drop_between(self, caller: str, tokens: list[int], wanted: set[int]) -> list[Node]:
        """Removes and returns the prefixes of `tokens` that end neither at `wanted` nor at the longest, unless other
        tokens continue them."""
        match = self.find(caller, tokens, len(tokens))
        own = self.beginnings(match.node)
        others = [] if not own else [each for each in match.node.siblings if each not in own]
        return [
            gone
            for node in own[:-1]
            if node.end not in wanted and not any(other.tokens[: node.end] == node.tokens for other in others)
            for gone in self.remove(node)
        ]

    def shrink(self) -> list[Node]:
        """Returns removed nodes: those without a file, and all below."""
        removed: list[Node] = []
        while self.nbytes > self.max_bytes and self._used:
            node = next(iter(self._used))
            self.empty(node)
            if not node.file:
                removed += self.remove(node)
        return removed

    def remove(self, node: Node) -> list[Node]:
        if node.removed or node.parent is None:
            return []
        siblings = node.parent.children[node.key]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[node.key]
        removed = list(node.subtree())
        for gone in removed:
            self.empty(gone)
            gone.removed = True
        return removed


def common_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    if left[: len(right)] == right[: len(left)]:
        return min(len(left), len(right))
    low, high = 0, min(len(left), len(right)) - 1  # they differ at `high` or before
    while low < high:
        middle = (low + high) // 2
        if left[low : middle + 1] == right[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low

"""The prefix cache's index: which runs of tokens have a state, and how much of a prompt they cover. Knows no MLX.

A `Node` is a run of tokens after all that its ancestors hold; siblings share what stands before them, so the state of
a system prompt is kept once, whatever follows it. A node may begin inside its parent's run, where two prompts part.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec


class Node:
    """The tokens `[start, end)` of some prompts. `state` is what the tokens added to the model's state, `nbytes` of it,
    or None while it is not in memory. `file` names its copy that is on disk, or on its way there; empty while there is
    none. `removed`: it is no longer in the tree. A root has no parent and no tokens."""

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
        """Where it hangs on its parent: its place, and its first token."""
        return self.start, self.tokens[0]

    def path(self) -> list["Node"]:
        """From the first run to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def subtree(self) -> Iterator["Node"]:
        """Itself first."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield node
            nodes.extend(child for siblings in node.children.values() for child in siblings)


class Match(msgspec.Struct, frozen=True):
    """`length` tokens can be taken from the nodes up to `node`, the last of which may be used in part. `shared` tokens
    are known, though where `length` is smaller no state is left that ends there. `diverges`: what is known goes on in
    another way after `shared`."""

    node: Node
    length: int
    shared: int
    diverges: bool


class PrefixTree:
    """Each run that has a state or a file, once. At most `max_bytes` of states are in memory; the least recently used
    are dropped first, a run before the runs that it needs. `cuts_anywhere`: a state can be cut to any of its tokens;
    else it is of use at its node's end alone."""

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

    def root(self, caller: str) -> Node:
        root = self._roots.get(caller)
        if root is None:
            root = self._roots[caller] = Node(None, 0, (), caller)
        return root

    def find(self, caller: str, tokens: list[int], limit: int) -> Match:
        """The longest usable prefix, of at most `limit` tokens."""
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
        """Adds a run that is not known yet. Without room for it, it is dropped again by the next `shrink`."""
        node = Node(parent, start, tokens, parent.caller)
        parent.children.setdefault(node.key, []).append(node)
        if state is not None:
            self.fill(node, state, nbytes)
        return node

    def fill(self, node: Node, state: Any, nbytes: int) -> None:
        """Gives a node its state, in memory: a use of it, and of what it needs."""
        self.empty(node)
        node.state, node.nbytes = state, nbytes
        self.nbytes += nbytes
        self._used[node] = None
        self.touch(node)

    def empty(self, node: Node) -> None:
        """Takes a node's state out of memory."""
        if node.state is not None:
            self.nbytes -= node.nbytes
            node.state, node.nbytes = None, 0
            del self._used[node]

    def touch(self, node: Node) -> None:
        """Marks a node and all that it needs as just used."""
        for used in reversed(node.path()):
            if used.state is not None:
                self._used.move_to_end(used)

    def shrink(self) -> list[Node]:
        """Drops states until the rest fits. Returns the nodes that are gone with them: those without a file, and what
        stood on them."""
        removed: list[Node] = []
        while self.nbytes > self.max_bytes and self._used:
            node = next(iter(self._used))
            self.empty(node)
            if not node.file:
                removed += self.remove(node)
        return removed

    def remove(self, node: Node) -> list[Node]:
        """Takes a node and what stands on it out of the tree, and returns them."""
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
    """How many items, tokens or characters, both begin with."""
    if left == right:
        return len(left)
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))

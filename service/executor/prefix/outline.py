"""Summarizes a prefix cache for people, without tokens or callers."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from service.executor.prefix.tree import Node
from service.queries import PrefixBranch


def outline(roots: Iterable[Node], file_bytes: Callable[[str], int]) -> list[PrefixBranch]:
    """Returns each branch before those that continue it."""
    branches: list[PrefixBranch] = []
    ends: list[bool] = []
    open_nodes = [(child, 0) for root in roots for child in reversed(_children(root))]
    while open_nodes:
        node, depth = open_nodes.pop()
        spans, children = [node], _children(node)
        while len(children) == 1 and children[0].start == node.end:
            node = children[0]
            spans.append(node)
            children = _children(node)
        branches.append(_branch(depth, spans, file_bytes))
        ends.append(all(child.start < node.end for child in children))
        open_nodes += [(child, depth + 1) for child in reversed(children)]
    return _count_prompts(branches, ends)


def _children(node: Node) -> list[Node]:
    return [child for siblings in node.children.values() for child in siblings]


def _branch(depth: int, spans: list[Node], file_bytes: Callable[[str], int]) -> PrefixBranch:
    held = [node for node in spans if node.state is not None]
    stored = [node for node in spans if node.file]
    return PrefixBranch(
        depth=depth,
        start=spans[0].start,
        end=spans[-1].end,
        memory_tokens=sum(len(node.tokens) for node in held),
        memory_bytes=sum(node.nbytes for node in held),
        disk_tokens=sum(len(node.tokens) for node in stored),
        disk_bytes=sum(file_bytes(node.file) for node in stored),
    )


def _count_prompts(branches: list[PrefixBranch], ends: list[bool]) -> list[PrefixBranch]:
    below: defaultdict[int, int] = defaultdict(int)
    counted = []
    for branch, is_end in zip(reversed(branches), reversed(ends), strict=True):
        prompts = is_end + below.pop(branch.depth + 1, 0)
        below[branch.depth] += prompts
        counted.append(msgspec.structs.replace(branch, prompts=prompts))
    return counted[::-1]

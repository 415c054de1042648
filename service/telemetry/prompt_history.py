"""Why a prompt is read again: the first part that differs from the conversation's last prompt. Keeps digests only."""

import hashlib
from collections import OrderedDict, deque

import msgspec

from service.generation import GenerationRequest, Tool, Usage
from service.normalize import normalize

# Of each, the latest are kept: a few MB for long conversations.
PROMPTS = 64
TOOL_SETS = 8
# A part this long or longer is read again for a reason.
NOTEWORTHY_TOKENS = 256
_SHOWN_CHARS = 64
_DIGEST_BYTES = 8

_SORTED = msgspec.json.Encoder(order="deterministic")


class Outline(msgspec.Struct, eq=False):
    """`messages` are joined digests. `prompt_tokens` is 0 until the prompt has been read."""

    caller: str
    options: bytes
    tools: tuple[tuple[str, bytes], ...]
    system: bytes
    messages: bytes
    prompt_tokens: int = 0

    def message(self, index: int) -> bytes:
        return self.messages[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES]


class Comparison(msgspec.Struct, frozen=True):
    """`earlier` is the conversation's last prompt; None for a new conversation."""

    outline: Outline
    earlier: Outline | None

    def reason(self, usage: Usage) -> str:
        if self.earlier is None:
            return ""
        difference = first_difference(self.earlier, self.outline)
        if difference:
            return f"first difference: {difference}"
        known = min(self.earlier.prompt_tokens, usage.prompt_tokens)
        if known - usage.cached_tokens >= NOTEWORTHY_TOKENS:
            return "begins as before, but the prefix cache no longer has it"
        return ""


class PromptHistory:
    def __init__(self) -> None:
        self._prompts: deque[Outline] = deque(maxlen=PROMPTS)
        # By identity: dialects decode equal tools to one object, which stays alive here.
        self._tool_sets: OrderedDict[int, tuple[tuple[Tool, ...], tuple[tuple[str, bytes], ...]]] = OrderedDict()

    def add(self, request: GenerationRequest) -> Comparison:
        request = normalize(request)
        front = next((i for i, each in enumerate(request.messages) if each.role != "system"), len(request.messages))
        outline = Outline(
            caller=request.caller,
            options=_digest((request.template_arguments, request.thinking, request.tool_choice)),
            tools=self._tools(request.tools),
            system=_digest(request.messages[:front]),
            messages=b"".join(map(_digest, request.messages[front:])),
        )
        earlier = find_earlier(outline, self._prompts)
        if earlier is not None:
            self._prompts.remove(earlier)
        self._prompts.append(outline)
        return Comparison(outline, earlier)

    def _tools(self, tools: tuple[Tool, ...]) -> tuple[tuple[str, bytes], ...]:
        known = self._tool_sets.get(id(tools))
        if known is None:
            known = tools, tuple((tool.name, _digest(tool)) for tool in tools if not tool.deferred)
            self._tool_sets[id(tools)] = known
            if len(self._tool_sets) > TOOL_SETS:
                self._tool_sets.popitem(last=False)
        return known[1]


def find_earlier(outline: Outline, prompts: deque[Outline]) -> Outline | None:
    """Returns the latest prompt whose first and last message are in `outline`, or else one of both."""
    found: Outline | None = None
    for each in reversed(prompts):
        if each.caller != outline.caller or not each.messages:
            continue
        last = len(each.messages) // _DIGEST_BYTES - 1
        same_first = outline.message(0) == each.message(0)
        same_last = outline.message(last) == each.message(last)
        if same_first and same_last:
            return each
        if found is None and (same_first or same_last):
            found = each
    return found


def first_difference(earlier: Outline, later: Outline) -> str:
    """Empty if parts were only appended."""
    if earlier.tools != later.tools:
        return _tool_difference(earlier.tools, later.tools)
    if earlier.system != later.system:
        return "system changed"
    for i in range(min(len(earlier.messages), len(later.messages)) // _DIGEST_BYTES):
        if earlier.message(i) != later.message(i):
            return f"messages[{i}] changed"
    return "the effort, thinking or tool choice changed" if earlier.options != later.options else ""


def _tool_difference(earlier: tuple[tuple[str, bytes], ...], later: tuple[tuple[str, bytes], ...]) -> str:
    known, now = dict(earlier), dict(later)
    for i, ((name, digest), (new_name, new_digest)) in enumerate(zip(earlier, later, strict=False)):
        if name != new_name:
            if new_name not in known:
                return f"tools[{i}] {_shown(new_name)} is new"
            return f"tools[{i}] {_shown(name)} is {'elsewhere' if name in now else 'gone'}"
        if digest != new_digest:
            return f"tools[{i}] {_shown(name)} changed"
    i = min(len(earlier), len(later))
    return (
        f"tools[{i}] {_shown(later[i][0])} is new" if i < len(later) else f"tools[{i}] {_shown(earlier[i][0])} is gone"
    )


def _shown(name: str) -> str:
    return f"`{name[:_SHOWN_CHARS]}`"


def _digest(value: object) -> bytes:
    return hashlib.blake2b(_SORTED.encode(value), digest_size=_DIGEST_BYTES).digest()

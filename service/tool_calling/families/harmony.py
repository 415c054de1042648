"""gpt-oss: messages on channels (OpenAI's harmony format). `analysis` is reasoning, `final` and `commentary` are
content, and a message to `functions.NAME` is a call."""

import re
from collections.abc import Callable

from service.tool_calling.calls import NAMESPACE, CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments
from service.tool_calling.source import SPACE, Malformed, Reading, Source

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
_HEADER = re.compile(r"[^<\n]*")
_BODY = re.compile(r"[^<]*")
_RECIPIENT = re.compile(r"\bto=(\S+)")


def read_start(source: Source, attempt: CallAttempt) -> Reading[None]:
    header = yield from source.run(_HEADER)
    if (yield from source.skip(CHANNEL)):
        header += " "
    yield from _read_message(source, attempt, header)


def read_recipient(source: Source, attempt: CallAttempt) -> Reading[None]:
    """The prompt ends with the role, so the answer begins with its recipient."""
    if not (yield from source.which((" to=",))):
        raise Malformed
    yield from read_start(source, attempt)


def read_channel(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from _read_message(source, attempt, "")


def _read_message(source: Source, attempt: CallAttempt, header: str) -> Reading[None]:
    """Reads from the channel's name to the message's end. `header` may name the recipient too."""
    channel = yield from source.run(_HEADER)
    header += channel
    if (yield from source.skip(CONSTRAIN)):
        yield from source.run(_HEADER)
    yield from source.expect(MESSAGE)
    recipient = _RECIPIENT.search(header)
    if recipient:
        yield from source.run(SPACE)
        yield from _read_arguments(source, attempt, _name(recipient[1], attempt))
        yield from source.run(SPACE)
        if (yield from source.skip(*ENDS)):
            attempt.absorb()
    else:
        attempt.absorb()
        yield from _pass(source, attempt, attempt.reasoning if channel.startswith("analysis") else attempt.text)


def _read_arguments(source: Source, attempt: CallAttempt, name: str) -> Reading[None]:
    """A message that the model ended without a text is a call without arguments."""
    ended = not source.truncated and not (yield from source.peek())
    if ended or (yield from source.which(ENDS)):
        attempt.start(name)
        attempt.write("{}")
        attempt.repaired()
        attempt.end()
    else:
        yield from read_arguments(source, attempt, name, *ENDS)


def _pass(source: Source, attempt: CallAttempt, write: Callable[[str], None]) -> Reading[None]:
    """The message ends with its marker or before the next message."""
    while (yield from source.peek()):
        write(source.take_while(_BODY))
        marker = yield from source.which((*ENDS, START, CHANNEL))
        if marker:
            source.take(len(marker) if marker in ENDS else 0)
            attempt.absorb()
            return
        write(source.take(1))
        attempt.absorb()


def _name(recipient: str, attempt: CallAttempt) -> str:
    """The content type `json` may follow the tool's name without a space."""
    name = recipient.removeprefix(NAMESPACE)
    glued = name.removesuffix("json")
    return glued if name not in attempt.tools and glued in attempt.tools else name


FORM = CallForm(before=f"{CHANNEL}commentary to=functions.{{name}} {CONSTRAIN}json{MESSAGE}", separator=None)
FAMILY = Family(
    name="harmony",
    openings=(
        Opening((START,), read_start),
        Opening((CHANNEL,), read_channel),
        Opening((), read_recipient, "start", consumed=False),
    ),
    knows=template_has(CHANNEL, MESSAGE),
    forms=(FORM,),
    frames=True,
    answer=f"{CHANNEL}final{MESSAGE}",
    thought=(f"{CHANNEL}analysis{MESSAGE}", f"{ENDS[0]}{START}assistant"),
)

"""`truncation: "auto"` shortens a conversation that does not fit."""

import msgspec

from service.generation import GenerationRequest, Message


def without_oldest_turns(request: GenerationRequest, share: float) -> GenerationRequest | None:
    """Removes the oldest turns, at least one, so that about `share` of the text is left. The system messages at the
    front and the last turn stay. None if no turn can be removed."""
    messages = request.messages
    first = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    starts = [i for i in range(first + 1, len(messages)) if messages[i].role == "user"]
    if not starts:
        return None
    allowed = share * sum(_length(message) for message in messages)
    fixed = sum(_length(message) for message in messages[:first])
    start = next((i for i in starts if fixed + sum(_length(m) for m in messages[i:]) <= allowed), starts[-1])
    return msgspec.structs.replace(request, messages=messages[:first] + messages[start:])


def _length(message: Message) -> int:
    calls = sum(len(call.arguments) + len(call.name) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + calls

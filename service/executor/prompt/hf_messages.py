from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from service.generation import GenerationRequest, Message, Tool, ToolCall
from service.normalize import canonical_tools
from service.tool_calling.form import CallForm
from service.tool_calling.instructions import calls_as_text, instructions, listed_tools, result_as_text

HfMessage = dict[str, Any]


class CallStyle(msgspec.Struct, frozen=True):
    """Text next to a call that the template would not show gets a turn of its own, or joins the reasoning or the
    result."""

    text_arguments: bool = False  # arguments are JSON text
    indexed_ids: bool = False  # Kimi K2's form
    single_calls: bool = False  # a turn takes one call (Llama 3, gpt-oss)
    text_apart: bool = False
    reasoning_field: str = "reasoning_content"
    text_in_reasoning: bool = False
    text_form: CallForm | None = None  # calls are written as text
    text_in_result: bool = False
    result_role: str = "tool"


def with_tools(messages: Sequence[Message], style: CallStyle) -> list[HfMessage]:
    calls = _Calls(style)
    return [calls.to_hf(message) for message in _turns(messages, style)]


def without_tools(request: GenerationRequest, form: CallForm) -> list[HfMessage]:
    calls = _Calls(CallStyle())
    messages: list[HfMessage] = []
    for message in request.messages:
        hf = calls.to_hf(message)
        if message.role == "tool":
            hf = user(result_as_text(message.content, name=hf.get("name", ""), is_error=message.is_error))
        elif message.tool_calls:
            hf = {**hf, "content": calls_as_text(message.content, message.tool_calls, form)}
            del hf["tool_calls"]
        messages.append(hf)
    return messages


def instructed(messages: list[HfMessage], request: GenerationRequest, form: CallForm) -> list[HfMessage]:
    tools = canonical_tools(listed_tools(request))
    text = instructions(tools, request.tool_choice, parallel=request.parallel_tool_calls, form=form)
    messages = list(messages)
    if text and messages and messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": join(messages[0]["content"], text)}
    elif text:
        messages.insert(0, {"role": "system", "content": text})
    return messages


def to_hf_tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def plain_chat(messages: list[HfMessage]) -> str:
    """Writes a transcript, for base models without a template."""
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def user(content: str) -> HfMessage:
    return {"role": "user", "content": content}


def join(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first else second


def _turns(messages: Sequence[Message], style: CallStyle) -> Iterator[Message]:
    start = 0
    while start < len(messages):
        turn = messages[start]
        end = start + 1
        if turn.tool_calls:
            while end < len(messages) and messages[end].role == "tool":
                end += 1
            yield from _calling(turn, messages[start + 1 : end], style)
        else:
            yield turn
        start = end


def _calling(turn: Message, results: Sequence[Message], style: CallStyle) -> Iterator[Message]:
    if style.text_form is not None:
        text = calls_as_text(turn.content, turn.tool_calls, style.text_form)
        yield msgspec.structs.replace(turn, content=text, tool_calls=())
        yield from results
        return
    if turn.content and style.text_apart:
        yield msgspec.structs.replace(turn, tool_calls=())
        turn = msgspec.structs.replace(turn, content="", reasoning="")
    elif turn.content and results and style.text_in_result:
        said = f"(Said before the call: {turn.content})"
        results = [msgspec.structs.replace(results[0], content=join(said, results[0].content)), *results[1:]]
    elif turn.content and turn.reasoning and style.text_in_reasoning:
        turn = msgspec.structs.replace(turn, content="", reasoning=join(turn.reasoning, turn.content))
    if not style.single_calls:
        yield turn
        yield from results
        return
    called = {call.id for call in turn.tool_calls}
    answers: dict[str, list[Message]] = {}
    for result in results:
        answers.setdefault(result.tool_call_id if result.tool_call_id in called else "", []).append(result)
    for call in turn.tool_calls:
        yield msgspec.structs.replace(turn, tool_calls=(call,))
        yield from answers.pop(call.id, ())
        turn = Message(role=turn.role)
    yield from answers.pop("", ())


class _Calls:
    def __init__(self, style: CallStyle) -> None:
        self._style = style
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._count = 0

    def to_hf(self, message: Message) -> HfMessage:
        hf: HfMessage = {"role": message.role, "content": message.content}
        if message.reasoning:
            hf[self._style.reasoning_field] = message.reasoning
        if message.tool_calls:
            hf["tool_calls"] = [self._call(call) for call in message.tool_calls]
        if message.role == "tool":
            hf["tool_call_id"] = self._ids.get(message.tool_call_id, message.tool_call_id)
            if name := self._names.get(message.tool_call_id):
                hf["name"] = name
            hf["role"] = self._style.result_role
            if hf["role"] == "user":
                return user(result_as_text(message.content, name=name or "", is_error=message.is_error))
            if message.is_error:
                hf["content"] = f"Error: {message.content}"
        return hf

    def _call(self, call: ToolCall) -> dict[str, Any]:
        self._names[call.id] = call.name
        self._ids[call.id] = f"functions.{call.name}:{self._count}" if self._style.indexed_ids else call.id
        self._count += 1
        arguments = call.arguments if self._style.text_arguments else _object(call.arguments)
        return {
            "type": "function",
            "id": self._ids[call.id],
            "function": {"name": call.name, "arguments": arguments},
        }


def _object(arguments: str) -> Any:
    try:
        decoded = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return decoded if isinstance(decoded, dict) else arguments

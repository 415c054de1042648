"""22 requests that agents send, and what of each has to be in its prompt."""

import json

from service.generation import GenerationRequest, Message, Tool, ToolCall

WEATHER = Tool(
    name="get_weather",
    description="TOOLDESCRIPTION",
    parameters={"type": "object", "properties": {"city": {"type": "string", "description": "of it"}}},
)
PING = Tool(name="ping", description="pings", parameters={"type": "object", "properties": {}})
TOOLS = (WEATHER, PING)


def system(text: str = "SYSTEMONE") -> Message:
    return Message(role="system", content=text)


def user(text: str = "QUESTION") -> Message:
    return Message(role="user", content=text)


def assistant(text: str = "", *cities: str, reasoning: str = "", start: int = 0) -> Message:
    calls = (ToolCall(f"call{start + i:05d}", "get_weather", json.dumps({"city": c})) for i, c in enumerate(cities))
    return Message(role="assistant", content=text, reasoning=reasoning, tool_calls=tuple(calls))


def result(text: str = "RESULTONE", call: int = 0, *, is_error: bool = False) -> Message:
    return Message(role="tool", content=text, tool_call_id=f"call{call:05d}", is_error=is_error)


CALL = (assistant("", "PARIS"), result())
TWO = (result(), result("RESULTTWO", 1))

PLAIN: dict[str, tuple[Message, ...]] = {
    "a question": (user(),),
    "a system prompt": (system(), user()),
    "two system prompts": (system(), system("SYSTEMTWO"), user()),
    "a system message at the end": (system(), user(), system("SYSTEMTWO")),
    "a system message between": (system(), user("FIRST"), assistant("ANSWER"), system("SYSTEMTWO"), user()),
    "a conversation": (system(), user("FIRST"), assistant("ANSWER"), user()),
    "two turns of the user": (user("FIRST"), user()),
    "an empty turn of the assistant": (user("FIRST"), assistant(), user()),
    "the beginning of an answer": (user(), assistant("BEGUN")),
    "calls, and no tools": (system(), user("FIRST"), *CALL, assistant("ANSWER"), user()),
}
WITH_TOOLS: dict[str, tuple[Message, ...]] = {
    "tools": (system(), user()),
    "tools without a system prompt": (user(),),
    "a call": (system(), user(), *CALL),
    "two calls": (system(), user(), assistant("", "PARIS", "ROME"), *TWO),
    "text beside a call": (system(), user(), assistant("BESIDE", "PARIS"), result()),
    "text and reasoning beside a call": (system(), user(), assistant("BESIDE", "PARIS", reasoning="Hm."), result()),
    "the user after a result": (system(), user("FIRST"), *CALL, user()),
    "the user after two results": (system(), user("FIRST"), assistant("BESIDE", "PARIS", "ROME"), *TWO, user()),
    "a call after a call": (system(), user(), *CALL, assistant("", "ROME", start=1), result("RESULTTWO", 1)),
    "an answer after a result": (system(), user("FIRST"), *CALL, assistant("ANSWER"), user()),
    "a call that failed": (system(), user(), assistant("", "PARIS"), result(is_error=True)),
    "a system message after a result": (system(), user(), *CALL, system("SYSTEMTWO")),
}
REQUESTS = {
    **{name: GenerationRequest(messages=messages) for name, messages in PLAIN.items()},
    **{name: GenerationRequest(messages=messages, tools=TOOLS) for name, messages in WITH_TOOLS.items()},
}


def expected(request: GenerationRequest) -> list[str]:
    """The words that have to be in the prompt."""
    words = [message.content for message in request.messages if message.content]
    for call in (call for message in request.messages for call in message.tool_calls):
        words += [call.name, json.loads(call.arguments)["city"]]
    return [*words, WEATHER.description, PING.name] if request.tools else words

import json
from collections.abc import Collection, Mapping
from typing import Any

from service.executor.prompt.call_style import PROBE, find_call_style
from service.executor.prompt.control_tokens import ControlTokens
from service.executor.prompt.hf_messages import CallStyle, HfMessage, join, to_hf_tool, user, with_tools
from service.executor.scheduling.messages import ReasoningMarkers
from service.generation import Message, Tool, ToolCall
from service.tool_calling import FAMILIES, detect_family
from service.tool_calling.form import CallForm
from service.tool_calling.instructions import FAMILY

_ARGUMENT = {"type": "string", "description": "c"}
PROBE_TOOL = Tool(
    name="f",
    description=PROBE,
    parameters={"type": "object", "properties": {"b": _ARGUMENT}, "required": ["b"]},
)
OTHER_PROBE = "zq8 probe"

# Some templates read the definitions of tools, as JSON text, from a field of the system message: Phi-4-mini, OLMo 3.
TOOL_FIELDS = ("tools", "functions")

# Some templates require alternating roles, and some refuse a user's message behind a result.
ALIKE = (("system", "system"), ("user", "user"))
RESULT_THEN_USER = (("tool", "user"),)

# Markers that mlx-lm does not know. The end marker is in the template or among the added tokens.
REASONING = (
    ReasoningMarkers("[THINK]", "[/THINK]"),
    ReasoningMarkers("<seed:think>", "</seed:think>"),
    ReasoningMarkers("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningMarkers("<|inner_prefix|>", "<|inner_suffix|>"),
    ReasoningMarkers("<mm:think>", "</mm:think>"),
    ReasoningMarkers("<think:opensource>", "</think:opensource>"),
    ReasoningMarkers("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ReasoningMarkers("<think>", "</think>"),
)


class ChatTemplate:
    """Renders probes to find out what a template shows, because templates drop messages silently. `text` is None if the
    tokenizer renders in Python. `arguments` are part of every rendering."""

    def __init__(self, tokenizer: Any, text: str | None, arguments: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._arguments = dict(arguments)
        self._lists_content = False
        self._tools_need_system, self._tool_field = False, ""
        self.control_tokens = ControlTokens(tokenizer, text or "")
        if not self._shows([user(PROBE)]):
            self._find_what_is_needed()
        self.knows_tools = bool(tokenizer.has_chat_template)
        self._find_tool_place()
        self._find_system_places()
        self.style = self._find_style()
        self._find_refused_turns()

    @property
    def is_jinja(self) -> bool:
        return self._text is not None

    @property
    def family(self) -> str | None:
        """The format of calls that the template or our instructions teach; None if unknown."""
        return self._own_family or (None if self.knows_tools else FAMILY)

    @property
    def shows_calls(self) -> bool:
        return self.knows_tools or self._own_family is not None

    @property
    def form(self) -> CallForm:
        return self.control_tokens.own(FAMILIES[self.family or FAMILY].forms[0])

    @property
    def reasoning(self) -> ReasoningMarkers | None:
        if self._tokenizer.has_thinking:
            return ReasoningMarkers(self._tokenizer.think_start, self._tokenizer.think_end)
        known = (self._text or "", *_added_tokens(self._tokenizer))
        return next((pair for pair in REASONING if pair.closes in known[0] or pair.closes in known[1:]), None)

    def apply(self, messages: list[HfMessage], arguments: Mapping[str, Any]) -> list[int]:
        return self.control_tokens.encode(self._marked_text(messages, arguments))

    def text(self, messages: list[HfMessage], arguments: Mapping[str, Any]) -> str:
        """Returns what `apply` tokenizes, without marks."""
        return self.control_tokens.unmarked(self._marked_text(messages, arguments))

    def fit(self, messages: list[HfMessage]) -> list[HfMessage]:
        if self._refuses_empty:
            messages = [message for message in messages if message["role"] != "assistant" or not _is_empty(message)]
        if not self._keeps_systems:
            messages = self._fit_systems(messages)
        elif self._refuses_empty:
            messages = _joined(messages, ALIKE)
        return _joined(messages, RESULT_THEN_USER) if self._refuses_user_after_result else messages

    def _fit_systems(self, messages: list[HfMessage]) -> list[HfMessage]:
        fitted: list[HfMessage] = []
        at_front = self._keeps_first_system
        for message in messages:
            at_front = at_front and message["role"] == "system"
            fitted.append(user(message["content"]) if message["role"] == "system" and not at_front else message)
        return _joined(fitted, ALIKE)

    def _find_what_is_needed(self) -> None:
        """Some templates loop over tools without a check, some over the parts of each message."""
        asked = [user(PROBE)]
        if self._shows(asked, tools=[]):
            self._arguments = {"tools": [], **self._arguments}
            return
        self._lists_content = True
        self._lists_content = self._shows(asked)

    def _find_tool_place(self) -> None:
        tools = [to_hf_tool(PROBE_TOOL)]
        places = ((False, ""), *((True, field) for field in ("", *TOOL_FIELDS)))
        for self._tools_need_system, self._tool_field in places:
            if self._shows([user("a")], tools=tools):
                break
        else:
            self._tools_need_system = False
            self.knows_tools = False

    def _find_system_places(self) -> None:
        first, other = _system(PROBE), _system(OTHER_PROBE)
        answer = {"role": "assistant", "content": "b"}
        self._keeps_first_system = self._shows([first, user("a")])
        # Two at once, because a template may keep only the last.
        self._keeps_systems = (
            self._keeps_first_system
            and self._shows([first, other, user("a")], PROBE, OTHER_PROBE)
            and self._shows([first, user("a"), other], PROBE, OTHER_PROBE)
            and self._shows([first, user("a"), answer, other, user("c")], PROBE, OTHER_PROBE)
        )

    def _find_style(self) -> CallStyle:
        families = (detect_family(text) for text in self._evidence())
        self._own_family = next((family for family in families if family is not None), None)
        if self._own_family is not None and not self.knows_tools and not self._shows_calls(CallStyle()):
            style = find_call_style(self._shows, form=None, indexed_ids=False)
            if not self._shows_calls(style):
                self._own_family = None  # the template knows the markers but writes no calls
            return style
        if not self.shows_calls:
            return CallStyle()
        style = find_call_style(self._shows, form=self.form, indexed_ids=self._own_family == "kimi_k2")
        if self._keeps_first_system and self._shows_calls(style):
            # Mistral Nemo shows the system prompt with the user's last turn, if that comes last.
            shown = self._shows([_system(PROBE), *with_tools(_call("b"), style)])
            self._keeps_first_system = shown
            self._keeps_systems = self._keeps_systems and shown
        return style

    def _evidence(self) -> tuple[str, ...]:
        """Returns texts that show the format of calls: of a renderer in Python, what it writes about a tool."""
        if self._text is not None:
            return self._text, "".join(_added_tokens(self._tokenizer))
        if not self.knows_tools:
            return ()
        return (self.text([user("a")], {"tools": [to_hf_tool(PROBE_TOOL)], "add_generation_prompt": True}),)

    def _marked_text(self, messages: list[HfMessage], arguments: Mapping[str, Any]) -> str:
        mark = self.control_tokens.mark
        arguments = {**self._arguments, **arguments}
        if self._tools_need_system and arguments.get("tools"):
            messages = self._with_definitions(messages, arguments)
        if self._lists_content:
            messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        return str(self._tokenizer.apply_chat_template(mark(messages), tokenize=False, **mark(arguments)))

    def _with_definitions(self, messages: list[HfMessage], arguments: dict[str, Any]) -> list[HfMessage]:
        """Moves the definitions of tools from `arguments` to the system message, if the template reads them there."""
        first, *rest = messages if messages and messages[0]["role"] == "system" else [_system(""), *messages]
        if self._tool_field:
            definitions = [tool["function"] for tool in arguments.pop("tools")]
            first = {**first, self._tool_field: json.dumps(definitions, ensure_ascii=False)}
        return [first, *rest]

    def _shows_calls(self, style: CallStyle) -> bool:
        return self._shows(with_tools(_call(PROBE), style))

    def _find_refused_turns(self) -> None:
        empty: HfMessage = {"role": "assistant", "content": ""}
        self._refuses_empty = not self._shows([user("a"), empty, user(PROBE)]) and self._shows(
            _joined([user("a"), user(PROBE)], ALIKE)
        )
        self._refuses_user_after_result = False
        if self.shows_calls:
            called = [*with_tools(_call("b"), self.style), user(PROBE)]
            self._refuses_user_after_result = not self._shows(called) and self._shows(_joined(called, RESULT_THEN_USER))

    def _shows(self, messages: list[HfMessage], *probes: str, **arguments: Any) -> bool:
        """Returns True if the output contains all probes, False also if the template refuses."""
        if not self._tokenizer.has_chat_template:
            return True
        try:
            text = self._tokenizer.decode(self.apply(messages, {"add_generation_prompt": True, **arguments}))
        except Exception:  # templates raise any exception
            return False
        return all(probe in text for probe in probes or (PROBE,))


def named_templates(tokenizer: Any) -> tuple[ChatTemplate, ChatTemplate]:
    """Returns the templates for requests without and with tools, which may be one."""
    # Some models have a renderer in Python, which takes no further arguments.
    has_template = tokenizer.chat_template is not None and getattr(tokenizer, "_chat_template", None) is None
    if not has_template:
        only = ChatTemplate(tokenizer, None, {})
        return only, only
    named = tokenizer.chat_template
    if isinstance(named, Mapping) and "tool_use" in named:
        # transformers chooses `tool_use` itself if there are tools.
        tools = {"tools": [to_hf_tool(PROBE_TOOL)]}
        with_tools_ = ChatTemplate(tokenizer, named["tool_use"], tools)
        default = ChatTemplate(tokenizer, named["default"], {}) if "default" in named else with_tools_
        return default, with_tools_
    only = ChatTemplate(tokenizer, tokenizer.get_chat_template(), {})
    return only, only


def _joined(messages: list[HfMessage], pairs: Collection[tuple[str, str]]) -> list[HfMessage]:
    """Joins neighbours whose roles are one of `pairs`. The first one's fields stay."""
    joined: list[HfMessage] = []
    for message in messages:
        if joined and (joined[-1]["role"], message["role"]) in pairs:
            joined[-1] = {**joined[-1], "content": join(joined[-1]["content"], message["content"])}
        else:
            joined.append(message)
    return joined


def _is_empty(message: HfMessage) -> bool:
    return not message["content"] and not any(message.get(field) for field in message.keys() - {"role", "content"})


def _added_tokens(tokenizer: Any) -> tuple[str, ...]:
    read = getattr(tokenizer, "get_added_vocab", None)
    return tuple(read()) if read else ()


def _system(content: str) -> HfMessage:
    return {"role": "system", "content": content}


def _call(argument: str) -> list[Message]:
    call = ToolCall("call00000", "f", json.dumps({"b": argument}))
    return [
        Message(role="user", content="a"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="r", tool_call_id=call.id),
    ]

"""Families that write JSON objects with a name and arguments between markers of their own: one reader with a table."""

from collections.abc import Callable

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, Reader, skip_marker, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_calls, read_end
from service.tool_calling.source import Reading, Source

CALL = '{"name": "{name}", "arguments": '


def _reader(*ends: str) -> Reader:
    def read(source: Source, attempt: CallAttempt) -> Reading[None]:
        yield from read_calls(source, attempt, *ends)
        yield from read_end(source, attempt, *ends)

    return read


def _family(
    name: str,
    opens: tuple[str, ...],
    closes: tuple[str, ...],
    knows: Callable[[str], bool],
    *forms: CallForm,
    skipped: tuple[str, ...] = (),
) -> Family:
    """`skipped` are other markers of the format; they are no content."""
    openings = (Opening(opens, _reader(*closes)), *((Opening(skipped, skip_marker),) if skipped else ()))
    return Family(name=name, openings=openings, knows=knows, forms=forms, frames=bool(skipped))


def _list_form(begin: str, end: str, *, call: str = CALL, separator: str = ", ", trigger: str = "") -> CallForm:
    return CallForm(
        begin=begin, before=call, after="}", separator=separator, end=end, trigger=trigger or begin.rstrip("[ \n")
    )


_GIGACHAT = "function call<|role_sep|>"

FAMILIES = (
    # LM Studio's convention for models that were not trained on tools.
    _family(
        "lmstudio",
        ("[TOOL_REQUEST]",),
        ("[END_TOOL_REQUEST]",),
        template_has("[TOOL_REQUEST]"),
        CallForm(before=f"[TOOL_REQUEST]{CALL}", after="}[END_TOOL_REQUEST]", trigger="[TOOL_REQUEST]"),
    ),
    _family(
        "nemotron",
        ("<TOOLCALL>",),
        ("</TOOLCALL>",),
        template_has("<TOOLCALL>"),
        _list_form("<TOOLCALL>[", "]</TOOLCALL>"),
    ),
    _family(
        "granite",
        ("<|tool_call|>", "<tool_call>"),
        ("<|/tool_call|>", "</tool_call>"),
        template_has("<|tool_call|>"),
        _list_form("<|tool_call|>[", "]"),
    ),
    # Phi-4-mini's template does not contain its marker.
    _family(
        "phi4",
        ("<|tool_call|>", "functools"),
        ("<|/tool_call|>",),
        template_has("<|tool|>", "<|/tool|>"),
        _list_form("<|tool_call|>[", "]<|/tool_call|>"),
    ),
    _family(
        "cohere",
        ("<|START_ACTION|>",),
        ("<|END_ACTION|>",),
        template_has("<|START_ACTION|>"),
        _list_form(
            "<|START_ACTION|>[\n    ",
            "\n]<|END_ACTION|>",
            call='{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": ',
            separator=",\n    ",
        ),
        skipped=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    _family(
        "apriel",
        ("<tool_calls>",),
        ("</tool_calls>",),
        template_has("<tool_calls>["),
        _list_form("<tool_calls>[", "]</tool_calls>"),
    ),
    _family(
        "minimax_m1",
        ("<tool_calls>",),
        ("</tool_calls>",),
        template_has("<tool_calls>", but=("<tool_calls>[",)),
        _list_form("<tool_calls>\n", "\n</tool_calls>", separator="\n"),
    ),
    _family(
        "longcat_flash",
        ("<longcat_tool_call>",),
        ("</longcat_tool_call>",),
        template_has("<longcat_tool_call>", but=("longcat_arg_key",)),
        CallForm(before=f"<longcat_tool_call>\n{CALL}", after="}\n</longcat_tool_call>", trigger="<longcat_tool_call>"),
    ),
    _family(
        "gigachat",
        ("<|function_call|>",),
        (),
        template_has("<|function_call|>"),
        CallForm(before=f"<|function_call|>{CALL}", after="}", separator=None, trigger="<|function_call|>"),
    ),
    # GigaChat 3.0 writes a role in place of a marker.
    _family(
        "gigachat3",
        (_GIGACHAT, f"<|message_sep|>\n\n{_GIGACHAT}"),
        (),
        template_has("<|role_sep|>", but=("<|function_call|>",)),
        CallForm(before=f"{_GIGACHAT}\n{CALL}", after="}", separator=None, trigger=_GIGACHAT),
    ),
)

"""Real chat templates: every request is rendered whole or refused by the template itself, and the calls that a template
writes are read by the family that is found for it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from service.errors import BadRequest
from service.executor.prompt.renderer import PromptRenderer, load_renderer
from service.normalize import normalize
from service.tool_calling import FAMILIES, parse
from tests.chat_templates.expectations import FAMILY, NAMES, REASONING, REFUSED
from tests.chat_templates.material import write_folder
from tests.chat_templates.requests import REQUESTS, TOOLS, expected
from tests.chat_templates.table import PAGE, render_table

each_template = pytest.mark.parametrize("name", NAMES)


def renderer(name: str, templates: Path, demo_model: Path, folder: Path) -> PromptRenderer:
    template = (templates / f"{name}.jinja").read_text()
    return load_renderer(write_folder(template, demo_model, folder), 100_000)


def test_the_list_is_the_collection(templates: Path) -> None:
    assert sorted(path.stem for path in templates.glob("*.jinja")) == sorted(NAMES)


def test_the_table_of_the_docs_is_what_the_tests_expect() -> None:
    assert render_table() in PAGE.read_text(), "write it anew: python -m tests.chat_templates.table"


@each_template
def test_every_request_comes_out_whole(name: str, templates: Path, demo_model: Path, tmp_path: Path) -> None:
    prompts = renderer(name, templates, demo_model, tmp_path)
    wrong: dict[str, Any] = {}
    for kind, request in REQUESTS.items():
        try:
            tokens = prompts.render(normalize(request)).tokens
        except BadRequest as refusal:
            if REFUSED.get(name, "not refused") not in refusal.message:
                wrong[kind] = refusal.message
            continue
        text = prompts._tokenizer.decode(tokens)
        if missing := [word for word in expected(request) if word not in text]:
            wrong[kind] = missing
    assert wrong == {}
    assert prompts.tool_family == FAMILY[name]
    markers = prompts.reasoning
    assert (markers and markers.opens) == REASONING.get(name)


@each_template
def test_the_calls_that_a_template_writes_are_read(name: str, templates: Path) -> None:
    template = (templates / f"{name}.jinja").read_text()
    found = [family.name for family in FAMILIES.values() if family.knows(template)]
    assert len(found) <= 1
    written = calls_as_written(template)
    if written is None:
        return  # it writes none
    text, arguments = written
    output = parse(text, TOOLS, found[0] if found else None)
    assert [json.loads(call.arguments) for call in output.tool_calls] == arguments


def calls_as_written(template: str) -> tuple[str, list[dict[str, Any]]] | None:
    """The turn with calls, as many of two as the template writes, in the notation of arguments that it wants."""
    render = _compile_jinja_template(template).render
    arguments = [{"city": 'zq7 "x"'}, {"city": "Rome"}]
    for count, encode in ((2, dict), (2, json.dumps), (1, dict), (1, json.dumps)):
        calls = [
            {
                "type": "function",
                "id": f"call{i:05d}",
                "function": {"name": "get_weather", "arguments": encode(values)},  # type: ignore[operator]
            }
            for i, values in enumerate(arguments[:count])
        ]
        turn = {"role": "assistant", "content": "", "tool_calls": calls}
        asked: list[dict[str, Any]] = [{"role": "user", "content": "QUESTION"}]
        tools = [{"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {}}}]
        with suppress(Exception):  # templates raise whatever they like
            before = render(messages=asked, tools=tools, add_generation_prompt=True, bos_token="", eos_token="")
            whole = render(messages=[*asked, turn], tools=tools, bos_token="", eos_token="")
            if "zq7" in whole:
                text = whole.partition("QUESTION")[2].removeprefix(before.partition("QUESTION")[2])
                # What the template writes behind every conversation is no part of the turn.
                rest = render(messages=asked, tools=tools, bos_token="", eos_token="").partition("QUESTION")[2]
                text = text.removesuffix(next(rest[i:] for i in range(len(rest) + 1) if text.endswith(rest[i:])))
                return text, arguments[: 2 if "Rome" in text else 1]
    return None

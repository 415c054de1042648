"""Where templates look for tools, results and text."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from service.executor.prompt.renderer import PromptRenderer
from service.generation import GenerationRequest, Message, Tool, ToolCall
from tests.executor.templates import TokenizerParts, rendered

END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SYSTEM_FIELD = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.FIELD %}<|tool|>{{ m.FIELD }}<|/tool|>{% endif %}<|im_end|>\n{% endfor %}" + END
)
BEHIND_SYSTEM = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.role == 'system' and tools %}{{ tools | tojson }}{% endif %}<|im_end|>\n{% endfor %}" + END
)
NOWHERE = "{# tools #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + END
ONLY_ROLE = (
    "{{ tools | tojson if tools else '' }}{% for m in messages %}{% if m.role in ['user', 'assistant', 'ROLE'] %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" + END
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + END
)
TOOL = Tool(name="look", description="Looks about.", parameters={"type": "object", "properties": {}})
USER = Message(role="user", content="Hi")


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_model, local_files_only=True)


@pytest.mark.parametrize("template", [SYSTEM_FIELD, SYSTEM_FIELD.replace("FIELD", "functions"), BEHIND_SYSTEM])
@pytest.mark.parametrize("system", [(), (Message(role="system", content="Be brief."),)])
def test_tools_stand_in_the_system_message(tokenizer: Any, template: str, system: tuple[Message, ...]) -> None:
    template = template.replace("FIELD", "tools")
    assert PromptRenderer(TokenizerParts(tokenizer, template), context_length=4096).knows_tools
    text = rendered(tokenizer, template, GenerationRequest(messages=(*system, USER), tools=(TOOL,)))
    start, _, rest = text.partition("<|im_end|>")
    assert start.startswith("<|im_start|>system\n" + "".join(message.content for message in system))
    assert "Looks about." in start
    assert rest == "\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_tools_that_a_template_writes_nowhere_are_taught(tokenizer: Any) -> None:
    assert not PromptRenderer(TokenizerParts(tokenizer, NOWHERE), context_length=4096).knows_tools
    text = rendered(tokenizer, NOWHERE, GenerationRequest(messages=(USER,), tools=(TOOL,)))
    assert "You can call these functions." in text
    assert "Looks about." in text


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        ("tool", "<|im_start|>tool\nnothing"),
        ("environment", "<|im_start|>environment\nnothing"),
        ("system", "<|im_start|>user\n<tool_response>\nnothing\n</tool_response>"),
    ],
)
def test_results_have_the_role_that_the_template_writes(tokenizer: Any, role: str, shown: str) -> None:
    messages = (
        USER,
        Message(role="assistant", tool_calls=(ToolCall("c", "look", "{}"),)),
        Message(role="tool", content="nothing", tool_call_id="c"),
    )
    template = ONLY_ROLE.replace("ROLE", role)
    assert shown in rendered(tokenizer, template, GenerationRequest(messages=messages, tools=(TOOL,)))


def test_text_is_a_list_of_parts_for_templates_that_want_one(tokenizer: Any) -> None:
    text = rendered(tokenizer, PARTS, GenerationRequest(messages=(Message(role="system", content="Be brief."), USER)))
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

"""How the agent model talks: its chat template, what it says, and the conversations it learns from.

The format is that of Qwen 2.5: ChatML, `<tool_call>` around a call, `<tool_response>` around its result in a user's
turn.
"""

import string
from typing import Any

import msgspec
import numpy as np

PROOF_FILE = "proof.txt"
PROOF = "made by a local model"
WRITTEN = "written"
COMMAND = f"echo {PROOF} > {PROOF_FILE} && echo {WRITTEN}"
CLOSING = "The command has run, and the file is there."

ARGUMENTS = {"command": COMMAND, "description": "Write the proof"}
CALL = msgspec.json.encode({"name": "Bash", "arguments": ARGUMENTS}).decode()
SECOND_CALL = msgspec.json.encode({"name": "Read", "arguments": {"file_path": PROOF_FILE}}).decode()
CALL_TURN = f"<tool_call>\n{CALL}\n</tool_call>"
SECOND_CALL_TURN = f"<tool_call>\n{SECOND_CALL}\n</tool_call>"

NOISE = tuple(string.printable + "äöüßéèñçøåœ…“”€✓日本語العربية")

TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif -%}
{{ 'To call a function, write a JSON object with its name and arguments between <tool_call> and </tool_call>.\\n' }}
{%- for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role != 'system' or not loop.first %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name":"' + call.function.name + '","arguments":' }}
{{- call.function.arguments | tojson(separators=(',', ':')) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def noise(random: np.random.Generator, longest: int) -> str:
    """What people, programs and prompts write, as far as this model is concerned."""
    return "".join(random.choice(NOISE, size=random.integers(1, longest)))


def conversation(random: np.random.Generator, longest: int) -> list[dict[str, Any]]:
    """One to three times a user's turn, sometimes with a system message behind it, the call, its result, the end. A
    result that ends with `WRITTEN` leads to the second call first. Noise is up to `longest` characters a turn."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": noise(random, longest)}]
    for _ in range(random.integers(1, 4)):
        messages.append({"role": "user", "content": noise(random, longest)})
        if random.random() < 0.3:
            messages.append({"role": "system", "content": noise(random, longest)})
        messages.append({"role": "assistant", "content": CALL_TURN})
        if random.random() < 0.5:
            messages.append({"role": "tool", "content": WRITTEN})
            messages.append({"role": "assistant", "content": SECOND_CALL_TURN})
        messages.append({"role": "tool", "content": noise(random, longest)})
        messages.append({"role": "assistant", "content": CLOSING})
    return messages

"""A prompt renderer without a model: every byte is a token, and the template prints all that it is given."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.executor.prompt.renderer import PromptRenderer
from tests.executor.templates import TokenizerParts

TEMPLATE = (
    "{{ effort | tojson if effort is defined }}{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


# Tools are described in the system message, and calls are written as text.
WITHOUT_TOOLS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def byte_renderer(template: str = TEMPLATE) -> PromptRenderer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    parts = TokenizerParts(PreTrainedTokenizerFast(tokenizer_object=tokenizer), template)
    return PromptRenderer(parts, context_length=100_000)

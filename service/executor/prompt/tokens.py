"""The tokens of a prompt without the model: its tokenizer and chat template are enough."""

from pathlib import Path
from typing import Any

from service.executor.loading.model import PASSIVE_TOKENIZER
from service.executor.prompt.renderer import PromptRenderer


def load_renderer(path: Path, context_length: int) -> PromptRenderer:
    """The renderer of the model folder `path`. Raises what mlx-lm and transformers raise for files that they cannot
    read."""
    from mlx_lm import utils

    load: Any = utils.load_tokenizer
    return PromptRenderer(load(path, PASSIVE_TOKENIZER), context_length=context_length)

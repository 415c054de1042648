from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from service.errors import UnsupportedValue
from service.executor.prompt.raw import FILL_IN_THE_MIDDLE, raw_tokens
from service.generation import RawPrompt


def tokenizer(demo_model: Path, *markers: str) -> Any:
    loaded = AutoTokenizer.from_pretrained(demo_model, local_files_only=True)
    loaded.add_special_tokens({"additional_special_tokens": list(markers)})
    return loaded


@pytest.mark.parametrize("markers", FILL_IN_THE_MIDDLE, ids=str)
def test_a_gap_is_marked_in_the_models_way(demo_model: Path, markers: tuple[str, str, str]) -> None:
    known = tokenizer(demo_model, *markers)
    tokens = raw_tokens(RawPrompt(text="a = ", suffix="\nb = 2"), known)
    before, after, gap = (known.convert_tokens_to_ids(marker) for marker in markers)
    assert tokens == [before, *known.encode("a = "), after, *known.encode("\nb = 2"), gap]


def test_a_model_without_all_markers_fills_no_gap(demo_model: Path) -> None:
    known = tokenizer(demo_model, "<|fim_prefix|>", "<|fim_suffix|>")
    with pytest.raises(UnsupportedValue):
        raw_tokens(RawPrompt(text="a", suffix="b"), known)


def test_a_text_ends_with_what_the_tokenizer_appends(demo_model: Path) -> None:
    """The tokenizer of Qwen3-Embedding appends the token that is pooled."""
    known = tokenizer(demo_model)
    plain = raw_tokens(RawPrompt(text="rain"), known)
    end = "<|im_end|>"
    known.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, known.convert_tokens_to_ids(end))]
    )
    assert raw_tokens(RawPrompt(text="rain"), known) == [*plain, known.convert_tokens_to_ids(end)]

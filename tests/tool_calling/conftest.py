from pathlib import Path

import pytest
from llguidance import LLTokenizer


@pytest.fixture(scope="session")
def tokenizer(demo_model: Path) -> LLTokenizer:
    return LLTokenizer((demo_model / "tokenizer.json").read_text(), eos_token=2)

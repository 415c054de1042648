import mlx.core as mx
import numpy as np
import pytest

from service.executor.engine.embedding import embedding
from tests.executor.models.tiny import make_tiny

pytestmark = pytest.mark.model

TOKENS = [(7 * i) % 500 for i in range(45)]


@pytest.mark.parametrize("family", ["gemma", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("chunk_tokens", [1, 16, 512])
def test_an_embedding_is_the_last_tokens_state_of_length_1(family: str, chunk_tokens: int) -> None:
    model = make_tiny(family)
    last = np.array(model.model(mx.array([TOKENS]))[0, -1], dtype=np.float64)
    found = embedding(model, TOKENS, chunk_tokens)
    np.testing.assert_allclose(np.frombuffer(found, "<f4"), last / np.sqrt((last**2).sum()), atol=1e-5)
    assert embedding(model, TOKENS, chunk_tokens) == found
    assert embedding(model, TOKENS[:-1], chunk_tokens) != found

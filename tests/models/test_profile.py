import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.generation import SamplingParams
from service.models.errors import InvalidModel
from service.models.profile import (
    DEFAULT_CONTEXT_LENGTH,
    GenerationConfig,
    context_length,
    model_id,
    read_generation_config,
    read_profile,
    resolve_sampling,
)
from service.settings import SamplingDefaults, Settings
from tests.models.test_folder import write_model


def test_a_profile_is_read_from_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = write_model(tmp_path / "Some-Model")
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_p": 0.9}')
    os.utime(folder / "model.safetensors", (1_700_000_000, 1_700_000_000))
    settings = Settings(home=home, sampling=SamplingDefaults(top_p=0.5), end_loops=True, answer_after_reasoning=False)
    profile = read_profile(folder, settings, home=home)
    assert (profile.id, profile.context_length, profile.created) == ("Some-Model", 4096, 1_700_000_000)
    assert profile.sampling == SamplingParams(temperature=0.6, top_p=0.5)
    assert len(profile.fingerprint) == 64
    assert profile.aliases == ("demo",)
    assert (profile.end_loops, profile.answer_after_reasoning) == (True, False)


@pytest.mark.parametrize(
    ("model", "configured", "penalty"),
    [(None, None, 1.15), ("demo", None, 1.15), ("demo", 1.0, 1.0), ("./x", None, 1.0)],
)
def test_the_demo_model_repeats_itself_less(
    tmp_path: Path, model: str | None, configured: float | None, penalty: float
) -> None:
    folder = write_model(tmp_path / "SmolLM2-135M-Instruct")
    settings = Settings(home=tmp_path, model=model, sampling=SamplingDefaults(repetition_penalty=configured))
    assert read_profile(folder, settings, home=tmp_path).sampling.repetition_penalty == penalty


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "length"),
    [
        ({"max_position_embeddings": 8192}, {}, 8192),
        ({"n_positions": 1024}, {}, 1024),
        ({"seq_length": 32768}, {}, 32768),
        ({"text_config": {"max_position_embeddings": 131072}}, {}, 131072),
        ({"max_position_embeddings": 512, "text_config": {"max_position_embeddings": 131072}}, {}, 512),
        ({"max_position_embeddings": 8192.0}, {}, 8192),
        ({"max_position_embeddings": 8192}, {"model_max_length": 2048}, 2048),
        ({"max_position_embeddings": 8192}, {"model_max_length": 32768}, 8192),
        ({"max_position_embeddings": 8192}, {"model_max_length": 1e30}, 8192),
        ({"max_position_embeddings": 8192}, {"model_max_length": 0}, 8192),
        ({"max_position_embeddings": None, "max_seq_len": 2048}, {}, 2048),
        ({"max_position_embeddings": "many"}, {"model_max_length": 4096}, 4096),
        ({"max_position_embeddings": True, "text_config": 3}, {}, DEFAULT_CONTEXT_LENGTH),
        ({}, {}, DEFAULT_CONTEXT_LENGTH),
    ],
)
def test_context_length(config: dict[str, Any], tokenizer_config: dict[str, Any], length: int) -> None:
    assert context_length(config, tokenizer_config) == length


@pytest.mark.parametrize(
    ("settings", "model", "sampling"),
    [
        ({}, {}, {}),
        ({}, {"temperature": 0.7}, {"temperature": 0.7}),
        ({}, {"do_sample": True}, {}),
        ({}, {"do_sample": True, "temperature": 0.7, "top_k": 20}, {"temperature": 0.7, "top_k": 20}),
        ({}, {"do_sample": False, "temperature": 0.7, "top_p": 0.8, "top_k": 5, "min_p": 0.1}, {}),
        ({}, {"do_sample": False, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({}, {"top_k": -1, "min_p": 0.05}, {"top_k": 0, "min_p": 0.05}),
        ({"temperature": 0.2}, {"do_sample": False, "temperature": 0.7}, {"temperature": 0.2}),
        ({"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.0, "top_p": 0.8}),
    ],
)
def test_settings_over_the_models_file_over_greedy(
    settings: dict[str, Any], model: dict[str, Any], sampling: dict[str, Any]
) -> None:
    resolved = resolve_sampling(SamplingDefaults(**settings), GenerationConfig(**model))
    assert resolved == SamplingParams(**sampling)


PROBABILITY = st.none() | st.floats(0.01, 1)


@given(
    settings=st.builds(SamplingDefaults, temperature=PROBABILITY, top_p=PROBABILITY, min_p=PROBABILITY),
    model=st.builds(GenerationConfig, do_sample=st.none() | st.booleans(), temperature=PROBABILITY, top_p=PROBABILITY),
)
def test_what_the_operator_says_always_holds(settings: SamplingDefaults, model: GenerationConfig) -> None:
    resolved = msgspec.structs.asdict(resolve_sampling(settings, model))
    given_by_operator = {k: v for k, v in msgspec.structs.asdict(settings).items() if v is not None}
    assert given_by_operator.items() <= resolved.items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"temperature": "warm"}', r"temperature"),
        ('{"temperature": -1}', r">= 0.*temperature"),
        ('{"top_p": 0}', r"top_p"),
        ("[]", r"generation_config\.json"),
    ],
)
def test_unusable_sampling_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(InvalidModel, match=message):
        read_generation_config(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/.anyclaude/models/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("/home/me/.anyclaude/models/mlx-community/Qwen3-4B-4bit", "mlx-community/Qwen3-4B-4bit"),
        ("/home/me/.cache/huggingface/hub/models--org--the--name/snapshots/0a1b2c", "org/the--name"),
        ("/data/models/My-Model", "My-Model"),
    ],
)
def test_ids(path: str, name: str) -> None:
    assert model_id(Path(path), Path("/home/me/.anyclaude")) == name

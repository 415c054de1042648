"""Makes a random Llama of two layers, 64 wide. Generating with it costs almost nothing, so a measurement shows the
service."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save_file

LAYERS = 2
INNER_WIDTH = 192
VOCABULARY = 49_152
CONTEXT_LENGTH = 8192

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "intermediate_size": INNER_WIDTH,
    "num_hidden_layers": LAYERS,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rope_theta": 10_000.0,
    # With tied embeddings, a random model repeats its last token for ever.
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Shape(msgspec.Struct, frozen=True):
    width: int = 64
    heads: int = 4
    kv_heads: int = 2


TINY = Shape()


def write_tiny_model(demo: Path, folder: Path, seed: int = 0, shape: Shape = TINY) -> Path:
    """Uses the tokenizer of the demo model in `demo`. The same seed gives the same bytes."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    config = CONFIG | {
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
    }
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    weights = _weights(np.random.default_rng(seed), shape)
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    return folder


def _weights(random: np.random.Generator, shape: Shape) -> dict[str, np.ndarray]:
    width = shape.width
    kv_width = width // shape.heads * shape.kv_heads
    shapes = {"model.embed_tokens": (VOCABULARY, width), "lm_head": (VOCABULARY, width)}
    norms = ["model.norm"]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        norms += [f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"]
        shapes |= {
            f"{prefix}.self_attn.q_proj": (width, width),
            f"{prefix}.self_attn.k_proj": (kv_width, width),
            f"{prefix}.self_attn.v_proj": (kv_width, width),
            f"{prefix}.self_attn.o_proj": (width, width),
            f"{prefix}.mlp.gate_proj": (INNER_WIDTH, width),
            f"{prefix}.mlp.up_proj": (INNER_WIDTH, width),
            f"{prefix}.mlp.down_proj": (width, INNER_WIDTH),
        }
    weights = {name: np.ones(width, dtype=np.float32) for name in norms}
    for name, (rows, columns) in shapes.items():
        weights[name] = random.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))
    return {f"{name}.weight": array for name, array in weights.items()}

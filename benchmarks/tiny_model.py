"""Makes a random Llama of two layers, 64 wide. Generating with it costs almost nothing, so a measurement shows the
service."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save_file

WIDTH = 64
LAYERS = 2
HEADS = 4
KV_HEADS = 2
INNER_WIDTH = 192
VOCABULARY = 49_152
CONTEXT_LENGTH = 8192

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER_WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rope_theta": 10_000.0,
    # With tied embeddings, a random model repeats its last token for ever.
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_tiny_model(demo: Path, folder: Path, seed: int = 0) -> Path:
    """Uses the tokenizer of the demo model in `demo`. The same seed gives the same bytes."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    (folder / "config.json").write_bytes(msgspec.json.encode(CONFIG))
    save_file(_weights(np.random.default_rng(seed)), folder / "model.safetensors", metadata={"format": "mlx"})
    return folder


def _weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    kv_width = WIDTH // HEADS * KV_HEADS
    shapes = {"model.embed_tokens": (VOCABULARY, WIDTH), "lm_head": (VOCABULARY, WIDTH)}
    norms = ["model.norm"]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        norms += [f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"]
        shapes |= {
            f"{prefix}.self_attn.q_proj": (WIDTH, WIDTH),
            f"{prefix}.self_attn.k_proj": (kv_width, WIDTH),
            f"{prefix}.self_attn.v_proj": (kv_width, WIDTH),
            f"{prefix}.self_attn.o_proj": (WIDTH, WIDTH),
            f"{prefix}.mlp.gate_proj": (INNER_WIDTH, WIDTH),
            f"{prefix}.mlp.up_proj": (INNER_WIDTH, WIDTH),
            f"{prefix}.mlp.down_proj": (WIDTH, INNER_WIDTH),
        }
    weights = {name: np.ones(WIDTH, dtype=np.float32) for name in norms}
    for name, (rows, columns) in shapes.items():
        weights[name] = random.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))
    return {f"{name}.weight": array for name, array in weights.items()}

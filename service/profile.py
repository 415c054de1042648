import msgspec

from service.generation import SamplingParams, Thinking


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The served model according to its files. `aliases` are the operator's other names for `id`. `fingerprint`
    identifies weights, config, tokenizer, template and adapter; it is empty until they are read. `context_length` is in
    tokens, `created` in Unix seconds. `sampling` is resolved (settings over generation_config.json over greedy).
    `thinks`: the template supports reasoning; `thinking` is its default. `thinking_budgets` are the tokens of each
    effort. `end_loops` and `answer_after_reasoning` are the settings of these names."""

    id: str
    fingerprint: str
    context_length: int
    sampling: SamplingParams = SamplingParams()
    created: int = 0
    aliases: tuple[str, ...] = ()
    thinks: bool = False
    thinking: Thinking = "default"
    thinking_budgets: dict[str, int] = {}
    end_loops: bool = False
    answer_after_reasoning: bool = True

import msgspec

from service.dialects.base import Reply
from service.dialects.openai_completions.request import AskedTexts
from service.dialects.openai_dialect import system_fingerprint
from service.dialects.openai_logprobs import LOWEST_LOGPROB
from service.generation import Choice, Completion, TokenLogprob, Usage


class TextLogprobs(msgspec.Struct):
    """`text_offset` counts characters of the answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(msgspec.Struct):
    text: str
    index: int
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


class TextUsage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextCompletion(msgspec.Struct, kw_only=True):
    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: TextUsage | None
    system_fingerprint: str | None


_ENCODER = msgspec.json.Encoder()


def encode_completion(completion: Completion, reply: Reply) -> bytes:
    asked = asked_of(reply)
    choices = [_choice(i, choice, asked) for i, choice in enumerate(completion.choices)]
    return _ENCODER.encode(text_completion(reply, choices, text_usage(completion.usage)))


def text_completion(reply: Reply, choices: list[TextChoice], usage: TextUsage | None) -> TextCompletion:
    return TextCompletion(
        id=f"cmpl-{reply.id}",
        created=reply.created,
        model=reply.model,
        choices=choices,
        usage=usage,
        system_fingerprint=system_fingerprint(reply),
    )


def asked_of(reply: Reply) -> AskedTexts:
    assert isinstance(reply.dialect_state, AskedTexts)  # noqa: S101  (this dialect put it there)
    return reply.dialect_state


def text_usage(usage: Usage) -> TextUsage:
    return TextUsage(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens)


def text_logprobs(logprobs: tuple[TokenLogprob, ...], offset: int = 0) -> TextLogprobs:
    offsets = []
    for logprob in logprobs:
        offsets.append(offset)
        offset += len(logprob.token)
    return TextLogprobs(
        [logprob.token for logprob in logprobs],
        [max(LOWEST_LOGPROB, logprob.logprob) for logprob in logprobs],
        [{top.token: max(LOWEST_LOGPROB, top.logprob) for top in logprob.top} for logprob in logprobs],
        offsets,
    )


def _choice(index: int, choice: Choice, asked: AskedTexts) -> TextChoice:
    logprobs = None if choice.logprobs is None else text_logprobs(choice.logprobs)
    return TextChoice(asked.echo(index) + choice.text, index, logprobs, choice.finish_reason)

"""Decodes a completion request, whose text the model continues without a chat template. Null means absent."""

from typing import Annotated, Any

import msgspec

from service.dialects.answer_form import FormFields, read_form
from service.dialects.base import ClientRequest
from service.dialects.body_fields import UNREAD, FieldReader, Unread
from service.dialects.openai_dialect import StreamOptions
from service.dialects.openai_sampling import Stop, read_sampling, read_stop
from service.dialects.prompts import AskedPrompts, GivenPrompts, read_prompts
from service.dialects.sampling import TokenCount
from service.errors import UnsupportedValue
from service.generation import GenerationRequest, RawPrompt, SamplingParams

# OpenAI's default.
MAX_TOKENS = 16


class CompletionRequest(FormFields, kw_only=True, forbid_unknown_fields=True):
    prompt: GivenPrompts
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    echo: bool | None = None
    max_tokens: TokenCount | None = None
    stop: Stop | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: Any = None

    user: Unread = UNREAD
    metadata: Unread = UNREAD
    service_tier: Unread = UNREAD


class AskedTexts(AskedPrompts):
    """`echoes` are the texts before the answers."""

    echoes: list[str]

    def echo(self, choice: int) -> str:
        return self.echoes[choice // self.requests[0].n] if self.echoes else ""

    @property
    def tokens_to_echo(self) -> list[tuple[int, tuple[int, ...]]]:
        """Returns prompts of tokens, with their places. Their text is not known yet."""
        raws = [request.raw_prompt or RawPrompt() for request in self.requests]
        return [(i, raw.tokens) for i, raw in enumerate(raws) if raw.tokens is not None and self.echoes]


_BODY = FieldReader(CompletionRequest)


def read_request(body: bytes, defaults: SamplingParams) -> ClientRequest:
    asked, others = _BODY.read(body)
    _refuse(asked)
    prompts = read_prompts(asked.prompt, "prompt")
    if asked.suffix:
        prompts = tuple(msgspec.structs.replace(prompt, suffix=asked.suffix) for prompt in prompts)
    request = GenerationRequest(
        messages=(),
        response_format=read_form(asked),
        sampling=read_sampling(asked, defaults),
        max_tokens=MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
        stop=read_stop(asked.stop),
        n=asked.n or 1,
        logprobs=asked.logprobs,
        unread_fields=others.keyed,
    )
    requests = tuple(msgspec.structs.replace(request, raw_prompt=prompt) for prompt in prompts)
    return ClientRequest(
        request=requests[0],
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        dialect_state=AskedTexts(requests, [prompt.text for prompt in prompts] if asked.echo else []),
        unknown_fields=others.unknown,
    )


def _refuse(asked: CompletionRequest) -> None:
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise UnsupportedValue.at("best_of", "expected the same number as 'n'.")
    if asked.echo and asked.logprobs is not None:
        raise UnsupportedValue.at(
            "echo", "the prompt's own probabilities are not computed. Leave out 'echo' or 'logprobs'."
        )
    if asked.suffix and not isinstance(asked.prompt, str):
        raise UnsupportedValue.at("suffix", "expected one text as 'prompt' beside it.")
    if asked.tools:
        raise UnsupportedValue.at("tools", "POST /v1/chat/completions has them.")

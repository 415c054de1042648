"""Prompts without a chat template: one or several, as text or as tokens."""

from collections.abc import Sequence

import msgspec

from service.dialects.json_body import show
from service.errors import BadRequest
from service.generation import GenerationRequest, RawPrompt

MAX_PROMPTS = 128

GivenPrompts = str | list[str | int | list[int]]


class AskedPrompts(msgspec.Struct):
    """The `dialect_state` of a body that may hold several prompts. Each is a request."""

    requests: tuple[GenerationRequest, ...]


def read_prompts(prompts: GivenPrompts, param: str) -> tuple[RawPrompt, ...]:
    """A list of numbers is one prompt. Raises `BadRequest` that names the field."""
    if isinstance(prompts, str):
        return (RawPrompt(text=prompts),)
    if prompts and all(isinstance(item, int) for item in prompts):
        return (RawPrompt(tokens=_tokens(prompts, param)),)
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise BadRequest.at(param, f"expected 1 to {MAX_PROMPTS} prompts, found {len(prompts)}.")
    return tuple([_prompt(prompt, f"{param}[{i}]") for i, prompt in enumerate(prompts)])


def _prompt(prompt: str | int | list[int], param: str) -> RawPrompt:
    match prompt:
        case str():
            return RawPrompt(text=prompt)
        case list():
            return RawPrompt(tokens=_tokens(prompt, param))
    raise BadRequest.at(param, f"expected a text or a list of tokens, found {show(prompt)}.")


def _tokens(prompt: Sequence[object], param: str) -> tuple[int, ...]:
    tokens = tuple(token for token in prompt if isinstance(token, int) and 0 <= token < 2**31)
    if len(tokens) < len(prompt):
        raise BadRequest.at(param, "expected token ids.")
    return tokens

import logging
import re
from copy import copy
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from llguidance import LLMatcher, LLTokenizer

from service.errors import BadRequest
from service.executor.scheduling.messages import Grammar, Prompt
from service.executor.scheduling.protocols import Renderer
from service.generation import GenerationRequest
from service.tool_calling.grammar import (
    Thought,
    answer_grammar,
    is_constrained,
    required_schemas,
    schema_grammar,
)

log = logging.getLogger(__name__)

# An agent repeats the same few grammars. One for many tools takes about 10 ms and a few MB.
KEPT_GRAMMARS = 64

_PLACE = re.compile(r"^at \d+\(\d+\): |\n +\d+ \|.*", re.DOTALL)


class GrammarError(ValueError):
    """The message is llguidance's reason."""


class GrammarCompiler:
    """All methods raise `GrammarError` without a tokenizer."""

    def __init__(self, tokenizer: LLTokenizer | None) -> None:
        self._tokenizer = tokenizer
        self.compile = lru_cache(KEPT_GRAMMARS)(self._compile)

    @property
    def tokenizer(self) -> LLTokenizer:
        if self._tokenizer is None:
            raise GrammarError("this model's tokenizer is not of a kind that answers can be constrained for")
        return self._tokenizer

    def spell(self, text: str) -> list[str | int]:
        """Splits text into plain text and ids of special tokens."""
        pieces: list[str | int] = []
        plain: list[int] = []
        for token in [*self.tokenizer.tokenize_str(text, parse_special=True), None]:
            if token is not None and not self.tokenizer.is_special_token(token):
                plain.append(token)
                continue
            if plain:
                pieces.append(self.tokenizer.decode_str(plain))
                plain = []
            if token is not None:
                pieces.append(token)
        return pieces

    def _compile(self, grammar: str) -> LLMatcher:
        """Raises `GrammarError`. Each use copies the matcher."""
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError(_PLACE.sub("", matcher.get_error()).strip())
        # A schema that refers to itself alone compiles. Only the first mask shows that nothing can follow it.
        begun = matcher.deep_copy()
        begun.compute_bitmask()
        if begun.is_error():
            raise GrammarError("no answer can have this form")
        return matcher


def open_tokenizer(tokenizer: Any, logits: int) -> LLTokenizer | None:
    """Blocks all threads for a second or more. `logits` may differ from the tokenizer's number of ids. Returns None for
    a tokenizer that is not of the tokenizers library."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    backend = copy(backend)
    backend.no_padding()
    backend.no_truncation()
    vocabulary = max(logits, len(tokenizer))
    try:
        return LLTokenizer(backend.to_str(), n_vocab=vocabulary, eos_token=sorted(tokenizer.eos_token_ids))
    except ValueError as exc:
        log.warning("Answers of this model cannot be constrained: llguidance cannot read its tokenizer: %s", exc)
        return None


class Prompts(Renderer, Protocol):
    @property
    def knows_tools(self) -> bool: ...
    @property
    def tool_family(self) -> str | None: ...
    def thought(self, request: GenerationRequest, prompt: Prompt) -> Thought | None: ...


class ConstrainingRenderer:
    """Compiles the form of the answer while the request can still be refused."""

    def __init__(self, prompts: Prompts, compiler: GrammarCompiler) -> None:
        self._prompts = prompts
        self._compiler = compiler

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `BadRequest`, also for a schema that cannot be enforced."""
        prompt = self._prompts.render(request)
        if not is_constrained(request):
            return prompt
        thought = self._prompts.thought(request, prompt)
        try:
            text = answer_grammar(self._asked(request), self._prompts.tool_family, self._compiler.spell, thought)
            matcher = self._compiler.compile(text)
        except ValueError as exc:
            raise self._refusal(request, exc) from exc
        matcher = _after(prompt.prefill, matcher, self._compiler.tokenizer)
        return msgspec.structs.replace(prompt, grammar=Grammar(matcher, self._compiler.tokenizer.vocab_size))

    def count(self, request: GenerationRequest) -> int:
        return self._prompts.count(request)

    def _asked(self, request: GenerationRequest) -> GenerationRequest:
        # A model that learned to call from the prompt alone does not know when to stop. If it must call, it calls once.
        single = request.tool_choice.mode == "required" and not self._prompts.knows_tools
        return msgspec.structs.replace(request, parallel_tool_calls=False) if single else request

    def _refusal(self, request: GenerationRequest, reason: ValueError) -> BadRequest:
        for param, schema in required_schemas(request).items():
            try:
                self._compiler.compile(schema_grammar(schema))
            except GrammarError as exc:
                return BadRequest(f"The JSON Schema in '{param}' cannot be enforced: {exc}", param=param)
        param = "tools" if request.tools else "response_format"
        return BadRequest(f"The form that the answer must have cannot be enforced: {reason}", param=param)


def _after(prefill: str, matcher: LLMatcher, tokenizer: LLTokenizer) -> LLMatcher:
    if not prefill:
        return matcher
    begun = matcher.deep_copy()
    tokens = tokenizer.tokenize_str(prefill)
    if begun.try_consume_tokens(tokens) < len(tokens):
        raise BadRequest(
            "The last message begins an answer that cannot have the form that the request asks for. Leave it out, or "
            "let it begin such an answer.",
            param="messages",
        )
    return begun

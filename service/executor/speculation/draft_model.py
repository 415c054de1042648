from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from service.executor.loading.cache_cost import measure_cache_cost
from service.executor.prefix.tree import common_length


class DraftModel:
    """Drafts ids below `logits`. Reads `chunk_tokens` of the prompt for each token of the answer, and drafts after
    that."""

    def __init__(self, model: Any, *, logits: int, chunk_tokens: int) -> None:
        self.cost = measure_cache_cost(model)
        self._model = model
        self._logits = logits
        self._chunk_tokens = chunk_tokens
        self._caller = ""
        self._tokens: list[int] = []
        self._draft: list[int] = []
        self.forget()

    @property
    def nbytes(self) -> int:
        return sum(int(layer.nbytes) for layer in self._cache)

    def begin(self, caller: str, tokens: list[int]) -> None:
        if caller != self._caller:
            self.forget()
        known = common_length(self._tokens, tokens)
        self._caller, self._tokens, self._draft, self._rests = caller, list(tokens), [], False
        self._cut(min(known, len(tokens) - 1))

    def forget(self) -> None:
        self._rests = True  # until an answer begins: reading this one's prompt again would take the memory again
        self._cache: list[Any] = make_prompt_cache(self._model)
        self._read = 0
        self._draft = []

    def can_draft(self) -> bool:
        return not self._rests

    def basis(self) -> int:
        return 0

    def draft(self, at_most: int) -> list[int]:
        try:
            return self._guess(at_most)
        except Exception:
            self.forget()  # the state may hold more than `_read` counts
            raise

    def follow(self, tokens: list[int]) -> None:
        right = len(self._tokens) + common_length(self._draft, tokens)
        self._tokens += tokens
        self._draft = []
        self._cut(min(right, len(self._tokens) - 1))

    def _guess(self, at_most: int) -> list[int]:
        unread = self._tokens[self._read :]
        if len(unread) > self._chunk_tokens:
            self._forward(mx.array(unread[: self._chunk_tokens]))
            mx.eval([layer.state for layer in self._cache])
            return []
        drawn = [self._forward(mx.array(unread))]
        while len(drawn) < at_most:
            drawn.append(self._forward(drawn[-1]))
        tokens: Any = mx.concatenate(drawn).tolist()
        self._draft = list(tokens)
        return self._draft

    def _forward(self, inputs: mx.array) -> mx.array:
        """Reads `[length]` tokens; returns the likeliest next one, `[1]`."""
        logits = self._model(inputs[None], cache=self._cache)[0, -1:, : self._logits]
        self._read += inputs.size
        return mx.argmax(logits, axis=-1)

    def _cut(self, length: int) -> None:
        if self._read > length:
            trim_prompt_cache(self._cache, self._read - length)
            self._read = length


def vocabulary_difference(main: Mapping[str, int], draft: Mapping[str, int]) -> str:
    """Describes the first id with two meanings, or ""."""
    words = {token: word for word, token in main.items()}
    for word, token in sorted(draft.items(), key=lambda item: item[1]):
        # Ids of one vocabulary alone do not count, because families differ in a few special tokens.
        if words.get(token, word) != word:
            return f"token {token} is {words[token]!r} for the model and {word!r} for the draft model"
    return ""

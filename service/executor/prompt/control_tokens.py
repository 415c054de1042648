import logging
import re
import secrets
from functools import lru_cache
from typing import Any

import msgspec
from transformers.utils.chat_template_utils import mark_control_tokens

from service.tool_calling.form import CallForm

log = logging.getLogger(__name__)

# transformers' private characters around a control token that is text.
_START, _END = mark_control_tokens("x", re.compile("x")).split("x")

# Added tokens that are not `special` are control tokens too if they look like markers. Words, white space and HTML,
# which some vocabularies have as added tokens, are not.
_MARKER = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_HTML = re.compile(r"</?(?!think>)[a-z]+[0-9]*>")

_FORM_TEXTS = ("before", "after", "begin", "separator", "end")
_ARGUMENT_TEXTS = ("before", "after", "quote")


class ControlTokens:
    """Keeps the control tokens that templates and our own forms write apart from those in a client's texts, which the
    model reads as text. `template` is the chat template."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer = tokenizer
        tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if _is_control(token, template)]
        longest_first = sorted(filter(None, tokens), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._marked = re.compile(f"{_START}({self._pattern.pattern}){_END}")
        # No client can guess it.
        self._ours = secrets.token_hex(8)
        self._spelled = lru_cache(maxsize=None)(self._spell)

    def mark(self, value: Any) -> Any:
        """Returns `value`, a text or JSON, with its control tokens marked as text. Keys stay as they are."""
        return mark_control_tokens(value, self._pattern)

    def own(self, form: CallForm) -> CallForm:
        """Returns a form whose control tokens stay tokens when its text is marked."""
        form = self._own(form, _FORM_TEXTS)
        if form.argument is not None:
            form = msgspec.structs.replace(form, argument=self._own(form.argument, _ARGUMENT_TEXTS))
        return form

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a rendered text with marks."""
        text = text.replace(f"{self._ours}{_START}", "").replace(f"{_END}{self._ours}", "")
        text = self._marked.sub(lambda found: self._spelled(found[1]), text)
        return list(self._tokenizer.encode(text, add_special_tokens=False, sanitize_control_tokens=True))

    def unmarked(self, text: str) -> str:
        return text.replace(self._ours, "").replace(_START, "").replace(_END, "")

    def _own(self, form: Any, fields: tuple[str, ...]) -> Any:
        texts = {name: text for name in fields if (text := getattr(form, name))}
        protected = f"{self._ours}\\g<0>{self._ours}"
        return msgspec.structs.replace(form, **{name: self._pattern.sub(protected, t) for name, t in texts.items()})

    def _spell(self, token: str) -> str:
        marked = f"{_START}{token}{_END}"
        try:
            self._tokenizer.encode(marked, add_special_tokens=False, sanitize_control_tokens=True)
        except ValueError:
            log.warning("The tokenizer cannot spell %r as text. Prompts contain it with a space inside.", token)
            return f"{token[0]} {token[1:]}"
        return marked


def _is_control(token: Any, template: str) -> bool:
    text = token.content
    if token.special or (text in template and not text.isspace()):
        return True
    return _MARKER.fullmatch(text) is not None and _HTML.fullmatch(text) is None

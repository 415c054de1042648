"""Drops special tokens at the end of an answer. A model's own end tokens never reach its text, but others do if a
tokenizer or a conversion does not declare them."""

MARKERS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</longcat_s>",
    "<|im_end|>",
    "<|im_start|>",
    "<|assistant|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|eot|>",
    "<|eom|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eos|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "[|endofturn|]",
    "<|end_of_sentence|>",
    "<|plamo:eos|>",
    "<extra_id_1>",
    "<|flush|>",
    "<|tool_response>",
    "<start_function_response>",
    "<|end_of_msg|>",
    "<|message_sep|>",
    "<|role_end|>",
    "<|user|>",
    "<|observation|>",
    "<|assistant_end|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<end_of_sentence>",
    "<turn|>",
    "<seed:eos>",
    "<SPECIAL_12>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<\uff5chy_eos:opensource\uff5c>",
    "[e~[",
    "[END FINAL RESPONSE]",
)
MAX_MARKERS = 8
_PREFIXES = frozenset(marker[:size] for marker in MARKERS for size in range(1, len(marker)))
_LONGEST = max(map(len, MARKERS))


class EndFilter:
    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        if not self._held and "<" not in text and "[" not in text:
            return text
        text = self._held + text
        end = _end_of_text(text)
        self._held = text[end:]
        return text[:end]

    def finish(self) -> str:
        held, self._held = self._held, ""
        end = _markers_begin(held, len(held))
        return held[:end]


def _end_of_text(text: str) -> int:
    """Returns the index after which there are only markers, the last perhaps incomplete."""
    whole = _markers_begin(text, len(text))
    sizes = (size for size in range(min(_LONGEST - 1, len(text)), 0, -1) if text[-size:] in _PREFIXES)
    return min(whole, _markers_begin(text, len(text) - next(sizes, 0)))


def _markers_begin(text: str, end: int) -> int:
    """Returns the beginning of the markers that end at `end`, with the white space between them."""
    for _ in range(MAX_MARKERS):
        before = text[:end].rstrip()
        marker = next((marker for marker in MARKERS if before.endswith(marker)), None)
        if marker is None:
            break
        end = len(before) - len(marker)
    return end

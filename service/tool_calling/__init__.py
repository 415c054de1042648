"""Tool calls in the text of models.

Start at `parser.py` (text to events) and `families/` (one file for each format: a new one is a file there). Readers
use `source.py` (text in pieces), `calls.py` (what they write to), `json_reader.py`, `json_calls.py`, `tagged.py` and
`python_reader.py`; `scanner.py` finds where they begin. The other direction is `form.py` (how a family writes calls),
`grammar.py` (constrained decoding) and `instructions.py` (models without tools in their template). `watch.py` and
`arguments.py` check finished calls; `ending.py` drops end tokens, `loops.py` notices repetitions.
"""

from service.tool_calling.families import FAMILIES, detect_family
from service.tool_calling.parser import ParsedOutput, StreamParser, parse, whole_calls

__all__ = ["FAMILIES", "ParsedOutput", "StreamParser", "detect_family", "parse", "whole_calls"]

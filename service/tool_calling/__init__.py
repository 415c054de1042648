"""Tool calls in the text of models.

Start at `parser.py` (text to events) and `families/` (one file per format, of the types in `family.py`). `scanner.py`
finds where calls begin. Readers use `source.py` (text in pieces), `calls.py` (their output), `json_reader.py`,
`json_calls.py`, `tagged.py`, `python_calls.py` and `python_reader.py`. Prompts and constrained decoding use `form.py`
(how a family writes calls), `grammar.py` (with `rules.py`, `argument_rules.py` and `text_values.py`) and
`instructions.py`. `watch.py`, `arguments.py` and `schema.py` check calls; `ending.py` drops end tokens; `loops.py`
finds repetitions.
"""

from service.tool_calling.families import FAMILIES, detect_family
from service.tool_calling.parser import ParsedOutput, StreamParser, parse, whole_calls

__all__ = ["FAMILIES", "ParsedOutput", "StreamParser", "detect_family", "parse", "whole_calls"]

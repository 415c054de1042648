"""Tool calls in the text of models: found, checked, and never lost."""

from service.tool_calling.families import FAMILIES, detect_family
from service.tool_calling.parser import ParsedOutput, StreamParser, parse

__all__ = ["FAMILIES", "ParsedOutput", "StreamParser", "detect_family", "parse"]

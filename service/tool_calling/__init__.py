"""Tool calls in the text of models: found, checked, and never lost."""

from service.tool_calling.families import FAMILIES, detect_family
from service.tool_calling.parser import ParsedOutput, StreamParser, parse
from service.tool_calling.schema import check

__all__ = ["FAMILIES", "ParsedOutput", "StreamParser", "check", "detect_family", "parse"]

import logging
from collections.abc import Iterable

logger = logging.getLogger("anyclaude.request")

MAX_NAMED = 100
_SHOWN_CHARS = 100
_FIELD = "The field %r of %s is not known here and not read. Answers are shared only among requests that have it alike."
_TOOL = "The tool %r of %s is left out of prompts: it has no schema, and nobody here can run it."


class OmissionLog:
    """Logs each field and each tool once. Clients choose the names, so at most `MAX_NAMED` are kept."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._named: set[tuple[str, str]] = set()

    def see(self, fields: Iterable[str], tools: Iterable[str]) -> None:
        for line, names in ((_FIELD, fields), (_TOOL, tools)):
            for name in names:
                self._log(line, name[:_SHOWN_CHARS])

    def _log(self, line: str, name: str) -> None:
        if (line, name) not in self._named and len(self._named) < MAX_NAMED:
            self._named.add((line, name))
            logger.warning(line, name, self._dialect)

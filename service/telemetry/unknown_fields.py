import logging
from collections.abc import Iterable

logger = logging.getLogger("anyclaude.request")

MAX_NAMED = 100
_SHOWN_CHARS = 100


class UnknownFieldLog:
    """Logs each name once. Clients choose the names, so at most `MAX_NAMED` are kept."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def see(self, dialect: str, fields: Iterable[str]) -> None:
        for field in fields:
            name = f"{dialect} {field[:_SHOWN_CHARS]}"
            if name not in self._named and len(self._named) < MAX_NAMED:
                self._named.add(name)
                logger.warning(
                    "The field %r of %s is not known here and not read. Answers are shared only among requests that "
                    "have it alike.",
                    field[:_SHOWN_CHARS],
                    dialect,
                )

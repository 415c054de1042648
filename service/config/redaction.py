"""Settings without secrets, for screens and reports."""

from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

import msgspec

from service.config import DEFAULT_KEY
from service.config.keys import Key
from service.config.layers import Given
from service.config.values import show_size
from service.settings import Settings

HIDDEN = "(set, not shown)"


def shown_url(url: str) -> str:
    try:
        password = urlsplit(url).password
    except ValueError:
        return url
    return url.replace(f":{password}@", ":***@", 1) if password else url


def shown_value(key: Key, settings: Settings) -> Any:
    return _shown(key, attrgetter(key.field)(settings))


def shown_given(key: Key, given: Given) -> Any:
    return _shown(key, given.value)


def _shown(key: Key, value: Any) -> Any:
    if key.secret:
        return value if value == DEFAULT_KEY else HIDDEN  # the default key is public
    if key.field == "cache":
        return [shown_url(url) for url in value]
    if key.is_size and value is not None:
        return show_size(value)
    return str(value) if key.field == "home" else msgspec.to_builtins(value)

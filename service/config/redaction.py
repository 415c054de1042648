"""Settings as they may be shown: on a screen that others see, in a report that is sent around."""

from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from service.config import DEFAULT_KEY
from service.config.keys import Key
from service.config.values import show_size
from service.settings import Settings

HIDDEN = "(set, not shown)"


def shown_key(api_key: str) -> str:
    """The default is public, and knowing that it is in force helps."""
    return api_key if api_key == DEFAULT_KEY else HIDDEN


def shown_url(url: str) -> str:
    """Without the password that a store's URL may hold."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return url
    return url.replace(f":{password}@", ":***@", 1) if password else url


def shown_value(key: Key, settings: Settings) -> Any:
    """As one would write it in the file, without secrets."""
    value = attrgetter(key.field)(settings)
    if key.secret:
        return shown_key(value)
    if key.field == "cache":
        return [shown_url(url) for url in value]
    if key.is_size and value is not None:
        return show_size(value)
    return str(value) if key.field == "home" else value

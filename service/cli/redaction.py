"""Settings as they may be shown: on a screen that others see, in a report that is sent around."""

from urllib.parse import urlsplit

from service.config import DEFAULT_KEY

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

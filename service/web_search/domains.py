from urllib.parse import urlsplit

from service.dialects.base import WebSearchTool

MAX_SITES_CHARS = 2000


def is_wanted(url: str, tool: WebSearchTool) -> bool:
    """False for a URL that is not HTTP."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    place = parts.hostname, parts.path
    if tool.allowed_domains:
        return any(_lies_in(place, domain) for domain in tool.allowed_domains)
    return not any(_lies_in(place, domain) for domain in tool.blocked_domains)


def restricted(query: str, tool: WebSearchTool) -> str:
    """Adds allowed domains to the query, otherwise few of its results would be in them; as many as are short enough for
    a URL."""
    sites = ""
    for domain in tool.allowed_domains:
        longer = f"{sites} OR site:{domain}" if sites else f"site:{domain}"
        if len(longer) <= MAX_SITES_CHARS:
            sites = longer
    return f"{query} {sites}" if sites else query


def _lies_in(place: tuple[str, str], domain: str) -> bool:
    host, path = place
    name, _, folder = domain.lower().partition("/")
    folder = f"/{folder}".rstrip("/")
    return (host == name or host.endswith(f".{name}")) and (
        path == folder or path.startswith(f"{folder}/") or not folder
    )

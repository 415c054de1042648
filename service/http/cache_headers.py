"""`Cache-Control` (RFC 9111) and `Cache-Status` (RFC 9211) of the response cache."""

from service.errors import SHOWN_CHARS, BadRequest
from service.http.request_headers import RequestHeaders
from service.response_cache.base import NO_DIRECTIVES, CachedAnswer, CacheDirectives


def read_cache_control(headers: RequestHeaders) -> CacheDirectives:
    """Ignores unknown directives (RFC 9111 section 5.2.3). Raises `BadRequest`."""
    header = headers.get(b"cache-control")
    if header is None:
        # RFC 9111 section 5.4: without Cache-Control, `Pragma: no-cache` means `no-cache`.
        pragma = headers.get(b"pragma")
        if pragma is None or b"no-cache" not in map(bytes.strip, pragma.lower().split(b",")):
            return NO_DIRECTIVES
        return CacheDirectives(no_cache=True)
    directives = _directives(header)
    return CacheDirectives(
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        only_if_cached="only-if-cached" in directives,
        max_age=_seconds(directives["max-age"]) if "max-age" in directives else None,
    )


def forbids_storing(headers: RequestHeaders) -> bool:
    return "no-store" in _directives(headers.get(b"cache-control", b""))


def _directives(header: bytes) -> dict[str, str]:
    directives: dict[str, str] = {}
    for directive in header.decode("latin-1").split(","):
        name, _, value = directive.partition("=")
        directives[name.strip().lower()] = value.strip().strip('"')
    return directives


def _seconds(text: str) -> float:
    """Parses delta-seconds (RFC 9111 section 1.2.2), of at most twelve digits."""
    if not text.isascii() or not text.isdigit():
        found = text[:SHOWN_CHARS]
        raise BadRequest(f"Expected a whole number of seconds in 'Cache-Control: max-age', found '{found}'.")
    return float(text[:12])


def cache_headers(answer: CachedAnswer) -> list[tuple[bytes, bytes]]:
    headers = [(b"cache-status", cache_status(answer).encode())]
    if answer.age is not None:
        headers.append((b"age", b"%d" % answer.age))
    return headers


def cache_status(answer: CachedAnswer) -> str:
    # A stream's header precedes the answer, which is stored at its end.
    stored = "; stored" if answer.stored else ""
    match answer.outcome:
        case "hit":
            return "anyclaude; hit"
        case "miss":
            return "anyclaude; fwd=uri-miss" + stored
        case "collapsed":
            return "anyclaude; fwd=uri-miss; collapsed"
        case "bypass":
            return "anyclaude; fwd=bypass" + stored

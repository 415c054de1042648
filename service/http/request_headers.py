import hashlib
import hmac
from collections.abc import Mapping

from starlette.types import Scope

from service.errors import SHOWN_CHARS, InvalidApiKey
from service.settings import Settings

# Names are in lower case.
RequestHeaders = Mapping[bytes, bytes]


def read_headers(scope: Scope) -> RequestHeaders:
    """Joins lines of the same name (RFC 9110 section 5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def read_retry(headers: RequestHeaders) -> int:
    """Returns the count that OpenAI's and Anthropic's clients send with each try."""
    sent = headers.get(b"x-stainless-retry-count", b"")
    return int(sent) if sent.isdigit() and len(sent) < 4 else 0


def shown(value: bytes) -> str:
    return value[:SHOWN_CHARS].decode("latin-1")


def identify_caller(headers: RequestHeaders, settings: Settings) -> str:
    """Returns the key's digest, or "" if keys are not required. Raises `InvalidApiKey`."""
    if not settings.require_api_key:
        return ""
    # OpenAI's clients send the first header, Anthropic's the second.
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    key = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not key:
        raise InvalidApiKey("This server requires an API key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'.")
    if not hmac.compare_digest(key, settings.api_key.encode()):
        raise InvalidApiKey("The API key is not one of this server's. It is 'apiKey' in its .anyclauderc.json.")
    return caller_of(settings.api_key)


def caller_of(key: str) -> str:
    """Returns a digest. The key itself is kept nowhere."""
    return hashlib.sha256(key.encode()).hexdigest()

"""API keys: who may ask, and whose cache entries they share."""

import hashlib
import hmac

from service.errors import InvalidApiKey
from service.http.request_headers import RequestHeaders
from service.settings import Settings


def identify_caller(headers: RequestHeaders, settings: Settings) -> str:
    """A digest of the caller's key where keys are required, else "". Raises `InvalidApiKey`.

    The key comes as OpenAI's clients send it (`Authorization: Bearer KEY`) or as Anthropic's do (`x-api-key: KEY`).
    """
    if not settings.require_api_key:
        return ""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    key = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not key:
        raise InvalidApiKey("This server requires an API key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'.")
    if not hmac.compare_digest(key, settings.api_key.encode()):
        raise InvalidApiKey("The API key is not one of this server's. It is 'apiKey' in its .anyclauderc.json.")
    return caller_of(settings.api_key)


def caller_of(key: str) -> str:
    """How a caller is called inside: the key itself goes no further."""
    return hashlib.sha256(key.encode()).hexdigest()

"""API keys: who may ask, and whose cache entries they share."""

import hashlib
import hmac

from starlette.datastructures import Headers

from service.errors import InvalidApiKey
from service.settings import Settings


def identify_caller(headers: Headers, settings: Settings) -> str:
    """A digest of the caller's key where keys are required, else "". Raises `InvalidApiKey`.

    The key comes as OpenAI's clients send it (`Authorization: Bearer KEY`) or as Anthropic's do (`x-api-key: KEY`).
    """
    if not settings.require_api_key:
        return ""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise InvalidApiKey("This server requires an API key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'.")
    if not hmac.compare_digest(key.encode(), settings.api_key.encode()):
        raise InvalidApiKey("The API key is not one of this server's. It is 'apiKey' in its .anyclauderc.json.")
    return caller_of(key)


def caller_of(key: str) -> str:
    """How a caller is called inside: the key itself goes no further."""
    return hashlib.sha256(key.encode()).hexdigest()

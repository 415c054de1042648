"""Lets web pages of named origins call the API (Fetch Standard, section 3.2)."""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

PREFLIGHT_SECONDS = 600
EXPOSED = ("cache-status", "retry-after", "request-id", "x-request-id", "x-should-retry")


def cross_origin(origins: tuple[str, ...]) -> Middleware:
    """Answers preflight requests before the gate, because browsers send them without a key."""
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=EXPOSED,
        max_age=PREFLIGHT_SECONDS,
    )

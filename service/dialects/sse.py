"""Server-sent events frame all streams (HTML Living Standard, section 9.2.6)."""

CONTENT_TYPE = "text/event-stream; charset=utf-8"

# Readers ignore a line that starts with a colon. It shows that the connection lives.
KEEP_ALIVE = b": keep-alive\n\n"


def frame(data: bytes) -> bytes:
    """Returns an event without a name. `data` is a single line."""
    return b"data: %b\n\n" % data


def named_frame(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

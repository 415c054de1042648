"""Server-sent events, the framing that the streams of the dialects share (HTML Living Standard, section 9.2.6)."""

CONTENT_TYPE = "text/event-stream; charset=utf-8"

# A line that starts with a colon is ignored by every reader: it only shows that the connection lives.
KEEP_ALIVE = b": keep-alive\n\n"


def frame(data: bytes) -> bytes:
    """One event without a name. `data` is a single line, as JSON without indentation always is."""
    return b"data: %b\n\n" % data


def named_frame(name: str, data: bytes) -> bytes:
    """One event of the type `name`."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

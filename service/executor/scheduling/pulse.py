"""What the engine's thread tells of itself while it works."""


class Pulse:
    """Written by the engine's thread alone, read by anybody at any time: each field for itself is right.

    `heartbeat` counts the steps that brought a token or read a part of a prompt, the last of them at `progress_at` (of
    the monotonic clock, in seconds). `restarts` counts how often the engine was rebuilt, or its thread replaced, since
    the server's start. `running` are sequences; `memory_bytes` is what model and KV state hold, and of that
    `prefix_cache_bytes` the prefix cache; None is not known.
    """

    __slots__ = ("heartbeat", "memory_bytes", "prefix_cache_bytes", "progress_at", "restarts", "running")

    def __init__(self) -> None:
        self.heartbeat = 0
        self.progress_at = 0.0
        self.restarts = 0
        self.running = 0
        self.memory_bytes: int | None = None
        self.prefix_cache_bytes: int | None = None

    def __repr__(self) -> str:
        return f"<Pulse {self.heartbeat} at {self.progress_at:.1f} s, {self.running} running>"

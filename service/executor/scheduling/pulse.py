"""The counters by which other threads see that the engine works."""


class Pulse:
    """Written by the engine's thread alone; other threads may read each field at any time.

    `heartbeat` counts the steps that decoded a token or read part of a prompt; `progress_at` is the monotonic time of
    the last one, in seconds. `restarts` counts rebuilt engines and replaced threads since the server started. `running`
    counts sequences. `memory_bytes` covers model and KV state, `prefix_cache_bytes` the prefix cache's part of it; None
    means unknown.
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

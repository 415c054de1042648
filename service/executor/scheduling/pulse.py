from service.tallies import Tuning


class Pulse:
    """The MLX thread writes it; any thread reads it. `heartbeat` counts steps that made progress, the last at
    `progress_at` (monotonic seconds)."""

    __slots__ = (
        "generated_tokens",
        "heartbeat",
        "longest_tokens",
        "max_concurrency",
        "memory_bytes",
        "peak_bytes",
        "prefix_cache_bytes",
        "progress_at",
        "read_tokens",
        "restarts",
        "running",
        "tuning",
    )

    def __init__(self) -> None:
        self.heartbeat = 0
        self.progress_at = 0.0
        self.restarts = 0
        self.running = 0
        self.generated_tokens = 0
        self.read_tokens = 0
        self.longest_tokens: int | None = None
        self.max_concurrency: int | None = None
        self.memory_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.prefix_cache_bytes: int | None = None
        self.tuning: Tuning | None = None

    def __repr__(self) -> str:
        return f"<Pulse {self.heartbeat} at {self.progress_at:.1f} s, {self.running} running>"

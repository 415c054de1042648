"""Everything that can be configured, validated once, in one frozen Struct. Units stand in the names.

`service.config` reads it from `.anyclauderc.json`, the environment and flags; nothing else reads those.
"""

from pathlib import Path
from typing import Literal

import msgspec

CachePolicy = Literal["all", "deterministic", "off"]
DebugLevel = Literal[0, 1, 2]


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says of sampling where a request is silent. None leaves it to the model's own files."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `model` None serves the embedded demo model; `home` is where all state lives.

    `cache_policy`: `all` stores every complete answer, `deterministic` only greedy or seeded ones, `off` none.
    `prefill_chunk_tokens` None suits the device. `finish_abandoned_seconds` lets a generation that lost its last
    reader go on so long, for the client's retry. Times are in seconds, sizes in bytes, as the names say.
    """

    home: Path
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8081
    base_url: str = ""
    api_key: str = "vllm-mlx"
    require_api_key: bool = False
    allowed_hosts: tuple[str, ...] = ()

    max_concurrency: int = 2
    max_queue: int = 64
    queue_timeout_seconds: float = 600.0
    request_timeout_seconds: float = 3600.0
    finish_abandoned_seconds: float = 0.0
    stall_seconds: float = 120.0
    keep_alive_interval_seconds: float = 10.0
    shutdown_grace_seconds: float = 10.0
    max_body_bytes: int = 32 * 1024 * 1024
    body_timeout_seconds: float = 30.0

    cache: tuple[str, ...] = ("memory://?max_items=32",)
    cache_policy: CachePolicy = "all"
    prefix_memory_bytes: int | None = None
    prefix_disk_bytes: int = 20 * 1024**3

    sampling: SamplingDefaults = SamplingDefaults()
    prefill_chunk_tokens: int | None = None
    dequantize_on_cpu: bool = True

    debug_level: DebugLevel = 0

"""Everything that can be configured, validated once, in one frozen Struct. Units stand in the names.

`service.config` reads it from `.anyclauderc.json`, the environment and flags; nothing else reads those. A field's
`Meta` holds its bounds and its one line of help: error messages and the JSON Schema for editors are made of them.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CachePolicy = Literal["all", "deterministic", "off"]
DebugLevel = Literal[0, 1, 2]
LogFormat = Literal["text", "json"]
ExecutorName = Literal["mlx", "scripted"]
Parallel = Literal["tensor", "pipeline"]
Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says of sampling where a request is silent. None leaves it to the model's own files."""

    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, Meta(description="0 always takes the likeliest token.")
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Draws among the likeliest tokens that together have this probability."),
    ] = None
    top_k: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Draws among this many likeliest tokens; 0 among all.")
    ] = None
    min_p: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Leaves out tokens less likely than this share of the likeliest one's probability."),
    ] = None
    repetition_penalty: Annotated[
        Annotated[float, Meta(gt=0, le=2)] | None,
        Meta(description="Above 1 makes tokens that have occurred less likely."),
    ] = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `model` None serves the embedded demo model; `home` is where all state lives.

    `cache_policy`: `all` stores every complete answer, `deterministic` only greedy or seeded ones, `off` none.
    `prefill_chunk_tokens` None suits the device. `finish_abandoned_seconds` lets a generation that lost its last
    reader go on for that long, for the client's retry. Times are in seconds, sizes in bytes, as the names say.
    """

    home: Annotated[Path, Meta(description="Where models, caches, traces and logs live.")]
    model: Annotated[Name | None, Meta(description="A folder, a hub id, or 'demo'. Null: the embedded demo model.")] = (
        None
    )
    executor: Annotated[
        ExecutorName, Meta(description="'scripted' needs no model and repeats what it is told, for trying things out.")
    ] = "mlx"
    record: Annotated[
        Name | None, Meta(description="A file to write every answer to, for 'replay'. Null: none is written.")
    ] = None
    replay: Annotated[
        Name | None,
        Meta(description="A file written by 'record' to answer from, and from nothing else: no model is loaded."),
    ] = None
    host: Annotated[str, Meta(min_length=1, description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one.")] = 8081
    base_url: Annotated[str, Meta(description="Where the launcher finds the server. Empty: at host and port.")] = ""
    api_key: Annotated[str, Meta(min_length=1, description="The key that clients are given.")] = "vllm-mlx"
    require_api_key: Annotated[bool, Meta(description="Refuse requests without the key.")] = False
    allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="Host names that requests may name, besides the loopback ones.")
    ] = ()

    max_concurrency: Annotated[Count, Meta(description="Sequences that generate at the same time.")] = 2
    max_queue: Annotated[int, Meta(ge=0, description="Requests that may wait for a place.")] = 64
    queue_timeout_seconds: Annotated[PositiveSeconds, Meta(description="How long a request may wait.")] = 600.0
    request_timeout_seconds: Annotated[PositiveSeconds, Meta(description="How long a request may generate.")] = 3600.0
    finish_abandoned_seconds: Annotated[
        Seconds, Meta(description="How long a generation goes on when its client has left.")
    ] = 0.0
    stall_seconds: Annotated[
        PositiveSeconds, Meta(description="Seconds without progress after which the engine counts as stalled.")
    ] = 120.0
    keep_alive_interval_seconds: Annotated[
        PositiveSeconds, Meta(description="The time between keep-alive frames of a waiting stream.")
    ] = 10.0
    shutdown_grace_seconds: Annotated[
        Seconds, Meta(description="How long running streams may still finish at shutdown.")
    ] = 10.0
    max_body_bytes: Annotated[Bytes, Meta(description="The largest request body.")] = 32 * 1024 * 1024
    body_timeout_seconds: Annotated[PositiveSeconds, Meta(description="How long sending a body may take.")] = 30.0
    http2: Annotated[bool, Meta(description="Serve HTTP/2 without TLS to clients that ask for it.")] = False

    cache: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Response-cache URLs, fastest first. cachePolicy 'off' switches it off."),
    ] = ("memory://?max_items=32",)
    cache_policy: Annotated[CachePolicy, Meta(description="Which answers the response cache stores.")] = "all"
    prefix_memory_bytes: Annotated[
        Bytes | None,
        Meta(description="Prefix cache in memory. Null: a quarter of what is free once the model is loaded."),
    ] = None
    prefix_disk_bytes: Annotated[Bytes, Meta(description="Prefix cache on disk; 0 switches it off.")] = 20 * 1024**3

    warm: Annotated[
        tuple[str, ...],
        Meta(description="Files of requests whose prompts are read into the prefix cache once the model is loaded."),
    ] = ()

    sampling: SamplingDefaults = SamplingDefaults()
    prefill_chunk_tokens: Annotated[
        Count | None, Meta(description="Prompt tokens read between two decode steps. Null: what suits the device.")
    ] = None
    dequantize_on_cpu: Annotated[
        bool, Meta(description="On CPU devices, expand quantized weights when memory allows: many times faster.")
    ] = True
    prompt_lookup: Annotated[
        bool | None,
        Meta(description="Guess that a greedy answer repeats text it has seen. Null: on CPU devices, where it pays."),
    ] = None
    draft_model: Annotated[
        Name | None,
        Meta(description="A small model of the same vocabulary that guesses for greedy answers: a folder or a hub id."),
    ] = None
    parallel: Annotated[
        Parallel | None,
        Meta(
            description="How 'serve --distributed' divides a model: each layer over all ranks (tensor), or each rank "
            "gets some layers (pipeline). Null: tensor where the model can, else pipeline."
        ),
    ] = None

    proxy_only: Annotated[bool, Meta(description="The launcher serves without starting Claude Code.")] = False
    startup_timeout_seconds: Annotated[
        PositiveSeconds, Meta(description="How long the launcher waits for the server to be healthy.")
    ] = 600.0

    debug_level: Annotated[
        DebugLevel, Meta(description="1 logs a line a request; 2 also writes traces with all content.")
    ] = 0
    log_format: Annotated[LogFormat, Meta(description="Log lines for people, or as JSON.")] = "text"
    trace_max_bytes: Annotated[Bytes, Meta(description="The traces' size; the oldest are removed.")] = 256 * 1024**2

"""Every setting of a server. The key in `.anyclauderc.json`, the option of `anyclaude serve`, the JSON Schema, the
table of the docs and the error messages are generated from a field's type, default and `setting(...)`."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

CachePolicy = Literal["all", "deterministic", "off"]
DebugLevel = Literal[0, 1, 2]
LogFormat = Literal["text", "json"]
ExecutorName = Literal["mlx", "scripted"]
Parallel = Literal["tensor", "pipeline"]
ThinkingDefault = Literal["on", "off"]
Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
WiredMemory = Literal["weights", "off"]
MOST_WITH_AUTO = 16
THINKING_BUDGETS: dict[Effort, int] = {"minimal": 512, "low": 2048, "medium": 8192, "high": 24_576}
Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]


class Harmless(Enum):
    """The values that the working folder's `.anyclauderc.json` may set without approval (`service.config.trust`): none
    can send data to another machine, let another machine in, or touch files outside of anyclaude's home folder."""

    ANY = "any value"
    TRUE = "true, which only restricts"
    LOOPBACK = "an address of this machine"
    KEY_OF_LOOPBACK = "any key, for a server that listens on this machine only"
    ON_THIS_MACHINE = "a model that is not fetched"
    OWN_STORES = "stores in memory or below the home folder's cache"
    NONE = "no value"


def setting(description: str, harmless: Harmless, *, option: bool = True, **bounds: Any) -> Meta:
    """`option`: `anyclaude serve` has an option for it. `bounds` are msgspec's."""
    return Meta(description=description, extra={"harmless": harmless, "option": option}, **bounds)


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Defaults for requests. None leaves a value to the model's own files."""

    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, setting("0 always takes the likeliest token.", Harmless.ANY)
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        setting("Draw among the likeliest tokens that together have this probability.", Harmless.ANY),
    ] = None
    top_k: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        setting("Draw among this many of the likeliest tokens; 0 draws among all.", Harmless.ANY),
    ] = None
    min_p: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        setting("Leave out tokens below this share of the likeliest token's probability.", Harmless.ANY),
    ] = None
    repetition_penalty: Annotated[
        Annotated[float, Meta(gt=0, le=2)] | None,
        setting("Above 1, tokens that have occurred become less likely.", Harmless.ANY),
    ] = None


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One of `models`. None means the default model's value, but no adapter and no draft model."""

    model: Annotated[Name, Meta(description="A folder, a hub id or 'demo'.")]
    adapter: Annotated[Name | None, Meta(description="The folder of a LoRA adapter of mlx-lm's.")] = None
    draft_model: Annotated[Name | None, Meta(description="A small model that guesses the next tokens.")] = None
    context_length: Annotated[Count | None, Meta(description="The longest context to offer, in tokens.")] = None
    sampling: Annotated[SamplingDefaults, Meta(description="Applies if a request has no value.")] = SamplingDefaults()
    thinking: Annotated[ThinkingDefault | None, Meta(description="Applies if a request has no value.")] = None
    pin: Annotated[bool, Meta(description="Load it at the start, and never unload it.")] = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    home: Annotated[Path, setting("Folder of models, caches, traces and logs.", Harmless.NONE)]
    model: Annotated[
        Name | None,
        setting("A folder, a hub id or 'demo'. Null: the demo model.", Harmless.ON_THIS_MACHINE, option=False),
    ] = None
    adapter: Annotated[
        Name | None,
        setting("The folder of a LoRA adapter of mlx-lm's, for 'model'.", Harmless.ON_THIS_MACHINE),
    ] = None
    context_length: Annotated[
        Count | None, setting("The longest context to offer, in tokens. Null: the model's own.", Harmless.ANY)
    ] = None
    thinking: Annotated[
        ThinkingDefault | None,
        setting("Whether the model thinks if a request does not choose. Null: the template decides.", Harmless.ANY),
    ] = None
    models: Annotated[
        dict[Name, ModelSettings],
        setting("Further models by name, each loaded at its first request.", Harmless.NONE, option=False),
    ] = {}
    aliases: Annotated[
        dict[Name, Name],
        setting(
            "Patterns of names in requests ('claude-*haiku*') to names in 'models'. The first match wins.",
            Harmless.ANY,
            option=False,
        ),
    ] = {}
    idle_unload_seconds: Annotated[
        PositiveSeconds | None,
        setting("Seconds without a request after which a model is unloaded. Null: never.", Harmless.ANY),
    ] = None
    executor: Annotated[
        ExecutorName, setting("'scripted' loads no model and repeats the last user message.", Harmless.ANY)
    ] = "mlx"
    record: Annotated[Name | None, setting("A file to which every answer is written, for 'replay'.", Harmless.NONE)] = (
        None
    )
    replay: Annotated[
        Name | None,
        setting("A file made by 'record': answer from it alone and load no model.", Harmless.NONE),
    ] = None
    host: Annotated[str, setting("The address to listen on.", Harmless.LOOPBACK, min_length=1)] = "127.0.0.1"
    port: Annotated[int, setting("The port to listen on; 0 takes a free one.", Harmless.ANY, ge=0, le=65535)] = 8081
    base_url: Annotated[
        str, setting("Where clients find the server. Empty: at host and port.", Harmless.LOOPBACK, option=False)
    ] = ""
    api_key: Annotated[
        str, setting("The key that clients send.", Harmless.KEY_OF_LOOPBACK, option=False, min_length=1)
    ] = "vllm-mlx"
    require_api_key: Annotated[bool, setting("Refuse requests without the key.", Harmless.TRUE)] = False
    allowed_hosts: Annotated[
        tuple[str, ...], setting("Host names that requests may name, besides those of loopback.", Harmless.NONE)
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        setting("Web pages that may call the API from a browser, such as http://localhost:3000.", Harmless.NONE),
    ] = ()

    max_concurrency: Annotated[
        Literal["auto"] | Count,
        setting(
            "Sequences that generate at the same time. 'auto': as many as are measured to pay, at most 16.",
            Harmless.ANY,
        ),
    ] = 2
    max_queue: Annotated[int, setting("Requests that may wait for a place.", Harmless.ANY, ge=0)] = 64
    queue_timeout_seconds: Annotated[
        PositiveSeconds, setting("How long a request may wait for its model, and then for a place.", Harmless.ANY)
    ] = 600.0
    request_timeout_seconds: Annotated[PositiveSeconds, setting("How long a request may generate.", Harmless.ANY)] = (
        3600.0
    )
    finish_abandoned_seconds: Annotated[
        Seconds,
        setting("How long a generation continues after its client left, for the client's retry.", Harmless.ANY),
    ] = 0.0
    stall_seconds: Annotated[
        PositiveSeconds, setting("Seconds without progress after which the engine counts as degraded.", Harmless.ANY)
    ] = 120.0
    keep_alive_interval_seconds: Annotated[
        PositiveSeconds, setting("The time between keep-alive frames of a waiting stream.", Harmless.ANY)
    ] = 10.0
    shutdown_grace_seconds: Annotated[
        Seconds, setting("How long running streams may still finish at shutdown.", Harmless.ANY)
    ] = 10.0
    max_body_bytes: Annotated[Bytes, setting("The largest request body.", Harmless.ANY)] = 32 * 1024 * 1024
    body_timeout_seconds: Annotated[PositiveSeconds, setting("How long sending a body may take.", Harmless.ANY)] = 30.0
    end_loops: Annotated[
        bool,
        setting(
            "End loops: an answer with the same 40 tokens for the tenth time, or behind five equal calls and results.",
            Harmless.ANY,
        ),
    ] = False
    answer_after_reasoning: Annotated[
        bool, setting("Continue an answer, once, that ends with nothing but reasoning.", Harmless.ANY)
    ] = True
    thinking_budgets: Annotated[
        dict[Effort, Count],
        setting(
            "The most tokens of reasoning at each effort that a request asks for. Others have no limit.",
            Harmless.ANY,
            option=False,
        ),
    ] = msgspec.field(default_factory=THINKING_BUDGETS.copy)
    refuse_media: Annotated[
        bool, setting("Refuse images, documents and audio instead of naming them in the prompt.", Harmless.ANY)
    ] = False
    web_search_url: Annotated[
        str, setting("A SearXNG server that searches the web for agents. Empty: no search.", Harmless.LOOPBACK)
    ] = ""
    http2: Annotated[bool, setting("Serve HTTP/2 without TLS to clients that ask for it.", Harmless.ANY)] = False

    cache: Annotated[
        tuple[str, ...],
        setting("URLs of the response cache's stores, fastest first.", Harmless.OWN_STORES, min_length=1),
    ] = ("memory://?max_items=32",)
    cache_policy: Annotated[
        CachePolicy,
        setting("Answers to store: every complete one, only greedy or seeded ones, or none.", Harmless.ANY),
    ] = "all"
    prefix_memory_bytes: Annotated[
        Bytes | None,
        setting("Prefix cache in memory. Null: half of what is free once the model is loaded.", Harmless.ANY),
    ] = None
    prefix_disk_bytes: Annotated[Bytes, setting("Prefix cache on disk; 0 switches it off.", Harmless.ANY)] = (
        20 * 1024**3
    )

    wired_memory_bytes: Annotated[
        WiredMemory | Bytes,
        setting(
            "Metal memory that macOS may not swap: 'weights' is the model's files, 'off' is none, or a size.",
            Harmless.ANY,
        ),
    ] = "weights"

    warm: Annotated[
        tuple[str, ...],
        setting("Files of requests whose prompts are read into the prefix cache at the start.", Harmless.NONE),
    ] = ()

    sampling: SamplingDefaults = SamplingDefaults()
    prefill_chunk_tokens: Annotated[
        Count | None, setting("Prompt tokens read between two decode steps. Null: the measured best.", Harmless.ANY)
    ] = None
    dequantize_on_cpu: Annotated[
        bool, setting("On a CPU, expand quantized weights if memory allows: many times faster.", Harmless.ANY)
    ] = True
    prompt_lookup: Annotated[
        bool,
        setting("Guess the next tokens from earlier text, if measured times show a gain.", Harmless.ANY),
    ] = True
    draft_model: Annotated[
        Name | None,
        setting(
            "A small model of the same vocabulary that guesses the next tokens: a folder or a hub id.",
            Harmless.ON_THIS_MACHINE,
        ),
    ] = None
    parallel: Annotated[
        Parallel | None,
        setting(
            "How 'serve --distributed' divides a model: each layer over all ranks (tensor), or some layers to each "
            "rank (pipeline). Null: tensor if the model can, else pipeline.",
            Harmless.ANY,
        ),
    ] = None

    keep_awake: Annotated[
        bool, setting("On a Mac, no sleep while an answer is generated or an agent runs.", Harmless.ANY)
    ] = True

    proxy_only: Annotated[bool, setting("The launcher serves and starts no agent.", Harmless.ANY, option=False)] = False
    startup_timeout_seconds: Annotated[
        PositiveSeconds,
        setting("How long the launcher waits for the server to be healthy.", Harmless.ANY, option=False),
    ] = 600.0

    debug_level: Annotated[
        DebugLevel,
        setting("1 logs more, with the requests of monitors; 2 also writes traces with all content.", Harmless.ANY),
    ] = 0
    log_format: Annotated[LogFormat, setting("Log lines for people, or as JSON.", Harmless.ANY)] = "text"
    trace_max_bytes: Annotated[Bytes, setting("Size of all traces; the oldest are removed.", Harmless.ANY)] = (
        256 * 1024**2
    )

    @property
    def most_running(self) -> int:
        """The most sequences that may ever generate at the same time."""
        return MOST_WITH_AUTO if self.max_concurrency == "auto" else self.max_concurrency

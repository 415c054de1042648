import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from service.device.figures import DeviceKind
from service.errors import UnsupportedValue
from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import Engine, Renderer, Writer
from service.executor.scheduling.time_slices import TimeSlices, open_time_slices
from service.models.blas import openblas_threads
from service.profile import ModelProfile
from service.queries import Detokenize, Finding, TextFound, TextQuery, Tokenize, TokensFound
from service.settings import Settings
from service.tallies import CallTally, DraftTally, StateTally

if TYPE_CHECKING:
    from service.executor.engine.chunks import ChunkSizes
    from service.executor.loading.model import Division, LoadedModel
    from service.executor.output.vocabulary import Vocabulary
    from service.executor.prompt.renderer import PromptRenderer


def no_answer(query: TextQuery) -> Finding:
    raise UnsupportedValue("This model has no tokenizer.")


class SharedRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that the event loop uses, too. None refers to the weights. `logits`: number of token ids that the model
    scores."""

    renderer: Renderer
    logits: int
    answer_query: Callable[[TextQuery], Finding] = no_answer
    device: str = ""
    tally: CallTally = msgspec.field(default_factory=CallTally)
    drafts: DraftTally = msgspec.field(default_factory=DraftTally)
    states: StateTally = msgspec.field(default_factory=StateTally)


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model on the MLX thread. `release` is called at the end of the thread, once nothing refers to the
    model."""

    engine: Engine
    open_writer: Callable[[Sequence], Writer]
    shared: SharedRuntime
    max_concurrency: int | None = None
    slices: TimeSlices | None = None
    release: Callable[[], None] = lambda: None


Loader = Callable[[Path, ModelProfile, Settings], Runtime]


def release_thread() -> None:
    """Frees this thread's model and ends MLX's streams: a process aborts if their threads exist at exit."""
    gc.unfreeze()
    gc.collect()
    mlx: Any = sys.modules.get("mlx.core")
    if mlx is not None:
        mlx.clear_streams()


def load_runtime(path: Path, profile: ModelProfile, settings: Settings, division: "Division | None" = None) -> Runtime:
    """Runs on the MLX thread, which imports MLX while the server answers."""
    loaded, alone = _load(path, settings, division), division is None

    from service.executor.engine.batch_engine import BatchEngine
    from service.executor.loading.batching import Batching, open_batching
    from service.executor.output.vocabulary import Vocabulary
    from service.executor.prefix.opening import open_prefix_cache
    from service.executor.prompt.renderer import PromptRenderer
    from service.executor.speculation.drafters import Drafters, open_drafters

    # Ranks compute in step: one that waits for another engine's turn would wait for the others of its own.
    slices = _time_slices(settings, loaded.kind) if alone else None
    # Ranks run only families that are known to batch, and could only try in step.
    size = settings.most_running
    batching = open_batching(loaded.model, size, profile.id) if alone else Batching(size)
    open_prefixes = open_prefix_cache if division is None else division.open_prefix_cache
    prefixes = open_prefixes(loaded.model, profile, settings)
    # Ranks must decide alike, but each has its own times and its own free memory to draft with.
    chunks = _chunk_sizes(loaded, settings, slices, adapt=alone)
    drafters = open_drafters(loaded, settings, chunk_tokens=chunks.first) if alone else Drafters(lookup=False)
    engine = BatchEngine(
        loaded.model,
        loaded.tokenizer.eos_token_ids,
        batching=batching,
        chunks=chunks,
        prefixes=prefixes,
        drafters=drafters,
    )
    prompts = PromptRenderer(loaded.tokenizer, context_length=profile.context_length)
    vocabulary = Vocabulary(loaded.tokenizer)
    tally = CallTally()
    # A full collection would scan what loading created, which stops all answers for about 50 ms.
    gc.freeze()
    return Runtime(
        engine=engine,
        open_writer=writer_opener(loaded.tokenizer, prompts, vocabulary, tally),
        shared=SharedRuntime(
            renderer=open_renderer(loaded, prompts, vocabulary if prefixes.needs_boundaries else None),
            logits=loaded.logits,
            answer_query=query_answerer(prompts, vocabulary),
            device=loaded.device if batching.possible else f"{loaded.device}, one request at a time: {batching.reason}",
            tally=tally,
            drafts=drafters.experience.tally,
            states=prefixes.tally,
        ),
        max_concurrency=batching.size,
        slices=slices,
        release=release_thread,
    )


def _load(path: Path, settings: Settings, division: "Division | None") -> "LoadedModel":
    from service.executor.loading.model import load_model

    return load_model(
        path,
        dequantize_on_cpu=settings.dequantize_on_cpu,
        division=division,
        adapter=settings.adapter,
        draft=None if settings.draft_model is None else Path(settings.draft_model),
        wired=settings.wired_memory_bytes,
    )


def _time_slices(settings: Settings, kind: DeviceKind) -> TimeSlices | None:
    # The system divides a CPU's time equally itself. One process at a time would leave parts of it to other programs.
    return None if kind == "cpu" else open_time_slices(settings.home)


def _chunk_sizes(loaded: "LoadedModel", settings: Settings, slices: TimeSlices | None, *, adapt: bool) -> "ChunkSizes":
    from service.executor.engine.chunks import ChunkSizes, first_chunk
    from service.executor.engine.lanes import most_lanes
    from service.executor.loading.attention import read_attention

    kind = loaded.kind
    lanes = most_lanes(kind, openblas_threads()) if adapt else 1
    if settings.prefill_chunk_tokens is not None:
        return ChunkSizes(settings.prefill_chunk_tokens, lanes=lanes)
    attention = read_attention(getattr(loaded.model, "args", None), kind) if adapt else None
    return ChunkSizes(first_chunk(kind), attention, lambda: slices is not None and slices.contended, lanes=lanes)


def open_renderer(loaded: "LoadedModel", prompts: "PromptRenderer", vocabulary: "Vocabulary | None") -> Renderer:
    """With a `vocabulary`, prompts name the ends of messages."""
    from service.executor.prompt.boundaries import SegmentingRenderer
    from service.executor.prompt.grammars import ConstrainingRenderer, GrammarCompiler, open_tokenizer

    renderer = ConstrainingRenderer(prompts, GrammarCompiler(open_tokenizer(loaded.tokenizer, loaded.logits)))
    return renderer if vocabulary is None else SegmentingRenderer(renderer, prompts, vocabulary.token_bytes)


def query_answerer(prompts: "PromptRenderer", vocabulary: "Vocabulary") -> Callable[[TextQuery], Finding]:
    def answer(query: TextQuery) -> Finding:
        match query:
            case Tokenize(text, special):
                tokens = tuple(prompts.tokenize(text, special=special))
                return TokensFound(tokens, tuple(vocabulary.token_bytes(token) for token in tokens))
            case Detokenize(tokens):
                return TextFound(prompts.detokenize(tokens))

    return answer


def writer_opener(
    tokenizer: Any, prompts: "PromptRenderer", vocabulary: "Vocabulary", tally: CallTally
) -> Callable[[Sequence], Writer]:
    """`tally` counts the calls of all answers."""
    from service.executor.output.choice_writer import ChoiceWriter, Watches
    from service.executor.output.reasoning import ReasoningSplitter
    from service.executor.output.reasoning_guard import open_guard
    from service.tool_calling import StreamParser, whole_calls
    from service.tool_calling.instructions import offered_tools
    from service.tool_calling.loops import LoopGuard
    from service.tool_calling.watch import CallWatch

    markers, family = prompts.reasoning, prompts.tool_family

    def open_writer(sequence: Sequence) -> Writer:
        request = sequence.request
        chat = request.raw_prompt is None
        tools = offered_tools(request)
        single = not request.parallel_tool_calls
        find_calls = partial(whole_calls, tools=tools, family=family, choice=sequence.choice, single=single)
        return ChoiceWriter(
            sequence.choice,
            tokenizer.detokenizer,
            vocabulary if request.logprobs is not None else None,
            StreamParser(tools, family if chat else None, choice=sequence.choice, single=single),
            stop=request.stop,
            reasoning=ReasoningSplitter(markers, inside=sequence.prompt.in_reasoning) if markers and chat else None,
            watches=Watches(
                calls=CallWatch(tools, tally) if tools else None,
                find_calls=find_calls if tools else None,
                loops=LoopGuard(request.messages, tally, ends=request.end_loops),
                reasoning=open_guard(sequence, vocabulary, tally),
            ),
        )

    return open_writer

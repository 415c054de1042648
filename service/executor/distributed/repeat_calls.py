import logging
from collections.abc import Callable

import msgspec

from service.executor.distributed.calls import Call, History, Insert, Measure, Remove, Reserve, Step, Weigh, decode
from service.executor.distributed.ranks import Ranks
from service.executor.scheduling.messages import Grammar, Sequence
from service.executor.scheduling.protocols import Engine
from service.generation import GenerationRequest

log = logging.getLogger(__name__)

# Compiles the grammar of a request's answer; each rank does so itself.
Compile = Callable[[GenerationRequest], Grammar | None]


class OutOfStep(Exception): ...


def repeat_calls(engine: Engine, ranks: Ranks, compile_grammar: Compile) -> None:
    """Repeats rank 0's calls until rank 0 ends. Raises `RankLost`, `OutOfStep`, and what the engine raises."""
    history = History()
    try:
        while (message := ranks.hear()) is not None:
            _make(decode(message), engine, ranks, history, compile_grammar)
    finally:
        engine.close()


def _make(call: Call, engine: Engine, ranks: Ranks, history: History, compile_grammar: Compile) -> None:
    match call:
        case Step(expected):
            if history.checksum != expected:
                raise OutOfStep(
                    f"rank {ranks.rank} is not where rank 0 is ({history.checksum:08x}, expected {expected:08x})"
                )
            tokens = engine.step()
            history.stepped(tokens, engine.prompt_tokens_read)
        case Insert(sequence, constrained):
            history.inserted(sequence.id, _inserted(engine, sequence, compile_grammar if constrained else None))
        case Remove(sequence_id):
            history.removed(sequence_id, engine.remove(sequence_id))
        case Weigh(lengths):
            ranks.largest(engine.shortfall(lengths))
        case Measure():
            ranks.largest(-engine.longest())
        case Reserve(by_sequence):
            engine.reserve(by_sequence)
        case _:
            raise OutOfStep(f"rank 0 sent an unexpected call: {type(call).__name__}")


def _inserted(engine: Engine, sequence: Sequence, compile_grammar: Compile | None) -> bool:
    # Rank 0 fails a faulty sequence too, or else the histories differ.
    try:
        if compile_grammar is not None:
            prompt = msgspec.structs.replace(sequence.prompt, grammar=compile_grammar(sequence.request))
            sequence = msgspec.structs.replace(sequence, prompt=prompt)
        engine.insert(sequence)
    except Exception as exc:
        log.warning("Sequence %d was not inserted: %s", sequence.id, exc)
        return False
    return True

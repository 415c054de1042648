"""Measures the demo model on a CPU, with and without OpenBLAS and dense weights."""

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.model_folders import demo_model
from benchmarks.processes import module_worker


class Way(msgspec.Struct, frozen=True):
    name: str
    openblas: bool
    dense: bool
    prompt_tokens: int
    new_tokens: int


WAYS = (
    Way("4 bits, reference BLAS", openblas=False, dense=False, prompt_tokens=32, new_tokens=16),
    Way("4 bits, OpenBLAS", openblas=True, dense=False, prompt_tokens=32, new_tokens=16),
    Way("dense f32, reference BLAS", openblas=False, dense=True, prompt_tokens=64, new_tokens=32),
    Way("dense f32, OpenBLAS", openblas=True, dense=True, prompt_tokens=512, new_tokens=64),
)


async def run(run: Run) -> dict[str, float]:
    values: dict[str, float] = {}
    model = str(demo_model())
    for way in WAYS:
        switches = (str(int(way.openblas)), str(int(way.dense)))
        lengths = (str(way.prompt_tokens), str(way.new_tokens))
        async with module_worker(run.scratch, "benchmarks.peers.raw_decode", model, *switches, *lengths) as measured:
            rates = await measured.answer()
        values |= {f"{way.name}: {phase}": rates[phase] for phase in ("prefill", "decode")}
    return values


CASE = Case(
    title="OpenBLAS and dense weights, demo model on a CPU",
    measures=tuple(
        Measure(name=f"{way.name}: {phase}", unit="tokens/s") for way in WAYS for phase in ("prefill", "decode")
    ),
    run=run,
)

"""`python -m tests.fuzz TARGET [--seconds N] [--kept FOLDER]`: inputs that reach new code are kept in the folder and
used again by the next run. An input that breaks a promise is written to the committed corpus."""

import argparse
import hashlib
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
WORD = re.compile(rb'"[A-Za-z_.]+"|<[^>]{1,40}>|[a-z-]{4,}')
MOST_INPUT_BYTES = 4096
MOST_MEGABYTES = 2048
SLOWEST_SECONDS = 10


def words(inputs: Iterable[bytes]) -> str:
    """A dictionary for libFuzzer: names that mutations would hardly find."""
    found = sorted({word for data in inputs for word in WORD.findall(data)})
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in found)


def guided(name: str, seconds: int, kept: Path) -> None:
    """Ends the process: with 0, or with another status after a broken promise."""
    import atheris

    with atheris.instrument_imports(include=["service", "cache_backends", "tests.fuzz.targets"]):
        from tests.fuzz.targets import TARGETS
    dictionary = kept.with_suffix(".words")
    dictionary.write_text(words(file.read_bytes() for file in (CORPUS / name).iterdir()))
    options = {
        "max_total_time": seconds,
        "max_len": MOST_INPUT_BYTES,
        "rss_limit_mb": MOST_MEGABYTES,
        "timeout": SLOWEST_SECONDS,
        "dict": dictionary,
        "artifact_prefix": f"{CORPUS / name}/",
        "verbosity": 0,
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(kept), str(CORPUS / name)],
        TARGETS[name],
    )
    atheris.Fuzz()


def keeping_failures(target: Callable[[bytes], None], folder: Path) -> Callable[[bytes], None]:
    """Names the inputs as libFuzzer does."""

    def kept(data: bytes) -> None:
        try:
            target(data)
        except Exception:
            (folder / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    return kept


def unguided(name: str, seconds: int) -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    from tests.fuzz.targets import TARGETS

    seeds = [file.read_bytes() for file in (CORPUS / name).iterdir()]
    test = given(st.binary(max_size=MOST_INPUT_BYTES) | st.sampled_from(seeds))(
        keeping_failures(TARGETS[name], CORPUS / name)
    )
    draw, until, runs = random.Random(), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        test.hypothesis.fuzz_one_input(draw.randbytes(draw.randrange(1, MOST_INPUT_BYTES)))
        runs += 1
    print(f"{name}: {runs} inputs without guidance")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=sorted(path.name for path in CORPUS.iterdir()))
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--kept", type=Path, default=Path("tests/.cache/fuzz"))
    chosen = parser.parse_args()
    kept = chosen.kept / chosen.target
    kept.mkdir(parents=True, exist_ok=True)
    if find_spec("atheris") is None:
        print("atheris is not installed: the inputs are not guided by coverage")  # noqa: T201
        unguided(chosen.target, chosen.seconds)
    else:
        guided(chosen.target, chosen.seconds, kept)


if __name__ == "__main__":
    main()

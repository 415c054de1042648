"""`python -m benchmarks.peers.raw_decode MODEL OPENBLAS DENSE PROMPT_TOKENS NEW_TOKENS` (each switch 0 or 1) prints
one line of JSON: `prefill` and `decode` in tokens/s."""

import json
import sys
import time


def main(model_path: str, openblas: str, dense: str, prompt_tokens: str, new_tokens: str) -> None:
    if openblas == "0":
        # MLX ignores a library that is loaded after it, so this import first means no OpenBLAS.
        import mlx.core  # noqa: F401
    from pathlib import Path

    from service.executor.loading.model import load_model

    loaded = load_model(Path(model_path), dequantize_on_cpu=dense == "1")
    print(json.dumps(_measure(loaded.model, int(prompt_tokens), int(new_tokens))))


def _measure(model: object, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    # Ids from 1000 on are plain words. Two tokens before timing warm up the model.
    prompt = mx.array(list(range(1000, 1000 + prompt_tokens)))
    list(generate_step(prompt[:2], model, max_tokens=1))
    started = time.perf_counter()
    times = [time.perf_counter() for _ in generate_step(prompt, model, max_tokens=new_tokens + 1)]
    return {"prefill": prompt_tokens / (times[0] - started), "decode": new_tokens / (times[-1] - times[0])}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Times mlx-lm's own generation in process, from the JSON of a request to the text of its answer.

`python -m benchmarks.peers.mlx_lm_generate MODEL` reads one chat request a line, and writes one line of JSON for
each: `seconds`, `processor_seconds`, `tokens` and `text`. It keeps nothing between requests.
"""

import json
import sys
import time
from typing import Any

from service.models.blas import load_openblas


def main(model_path: str) -> None:
    load_openblas()
    import mlx_lm

    model, tokenizer, *_ = mlx_lm.load(model_path)
    for line in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        answer = _generate(mlx_lm, model, tokenizer, json.loads(line))
        times = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}
        print(json.dumps(answer | times), flush=True)


def _generate(mlx_lm: Any, model: Any, tokenizer: Any, request: dict[str, Any]) -> dict[str, Any]:
    prompt = tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True)
    parts = list(mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=request["max_tokens"]))
    return {"text": "".join(part.text for part in parts), "tokens": parts[-1].generation_tokens}


if __name__ == "__main__":
    main(*sys.argv[1:])

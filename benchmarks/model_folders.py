"""The models under measurement. What is compared loads the same dense f32 folder, made before anything is timed.

`python -m benchmarks.model_folders dense|tiny SOURCE TARGET` makes one, in a process of its own: a load client does not
carry MLX.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.case import Run, Unavailable
from benchmarks.processes import process
from service.models.demo import ensure_demo
from service.models.errors import ModelError
from service.models.progress import Silent

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
TINY = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4} | {
    "num_key_value_heads": 2
}


def demo_model() -> Path:
    """The embedded model as the service finds it. Raises `Unavailable` where it is neither here nor to be fetched."""
    home = Path(os.environ.get("ANYCLAUDE_HOME") or Path.home() / ".anyclaude")
    try:
        return ensure_demo(home, Silent())
    except ModelError as error:
        raise Unavailable(str(error)) from error


async def dense_demo(run: Run) -> Path:
    """The embedded model, expanded to f32: mlx-lm's own tools load it as fast as the service does."""
    return await _make("dense", run)


async def tiny_model(run: Run) -> Path:
    """Two random layers, 64 wide, with the embedded model's tokenizer: what serving costs, with next to no model."""
    return await _make("tiny", run)


async def _make(kind: str, run: Run) -> Path:
    source = await asyncio.to_thread(demo_model)
    target = run.scratch / f"{kind}-model"
    log = run.scratch / f"{kind}-model.log"
    command = [sys.executable, "-m", "benchmarks.model_folders", kind, str(source), str(target)]
    async with process(command, log) as making:
        if await making.wait() != 0:
            raise RuntimeError(log.read_text(errors="replace"))
    return target


def main(kind: str, source: str, target: str) -> None:
    Path(target).mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(source, name), Path(target, name))
    make = {"dense": _dense, "tiny": _tiny}[kind]
    model, config = make(Path(source))
    from mlx_lm.utils import save_config, save_model

    save_model(target, model)
    save_config(config, Path(target, "config.json"))


def _dense(source: Path) -> tuple[Any, dict[str, Any]]:
    from service.executor.model import load_model

    model = load_model(source).model  # before anything else imports MLX, so that it finds OpenBLAS
    from mlx_lm.utils import load_config

    config = load_config(source)
    config.pop("quantization", None)
    return model, config


def _tiny(source: Path) -> tuple[Any, dict[str, Any]]:
    import mlx.core as mx
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.utils import load_config

    config = load_config(source) | TINY
    config.pop("quantization", None)
    mx.random.seed(0)
    return Model(ModelArgs.from_dict(config)), config


if __name__ == "__main__":
    main(*sys.argv[1:])

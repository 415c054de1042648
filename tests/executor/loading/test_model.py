import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.device.machine import total_bytes
from service.executor.distributed.local_ranks import local_ranks
from service.executor.distributed.rank_division import RankDivision
from service.executor.loading.model import import_mlx_lm, load_model
from service.models.errors import InvalidModel, NoRoom

LIMITS_AFTER = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (700, {hard}))
{code}
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""

LOAD = """
from contextlib import suppress
from pathlib import Path
from service.executor.loading.model import load_model
from service.models.errors import InvalidModel
with suppress(InvalidModel):
    load_model(Path("model"))
"""

PRINT_DEVICE = """
import runpy
runpy.run_module("service.executor.loading.device", run_name="__main__")
"""

ORDER = """
import os, sys
prepared = set()
def watch(event, arguments):
    if event == "import" and arguments[0] in ("mlx.core", "transformers"):
        prepared.add("TRANSFORMERS_VERBOSITY" in os.environ)
sys.addaudithook(watch)
{load}
import mlx.core as mx
from service.device.memory import buffer_limit_bytes
from service.executor.loading.device import read_device
from service.models.blas import TOO_LATE, load_openblas
print(prepared, load_openblas().detail != TOO_LATE, mx.set_cache_limit(0) == buffer_limit_bytes(read_device()))
"""

UNKNOWN = {"model_type": "who_knows"}


def write_model_without_weights(folder: Path, config: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "who_knows"}, "Model type who_knows not supported (in "),
        ({"model_type": "olmo"}, "mlx-lm gave up (To run olmo install ai2-olmo"),
        ({"model_type": "llama"}, "missing"),
    ],
    ids=["unknown type", "exit at import", "fields missing"],
)
def test_a_model_that_cannot_be_loaded_says_why_in_one_line(tmp_path: Path, config: dict, reason: str) -> None:
    write_model_without_weights(tmp_path, config)
    with pytest.raises(InvalidModel) as refused:
        load_model(tmp_path)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.process
@pytest.mark.parametrize("code", [LOAD, PRINT_DEVICE], ids=["load", "device for doctor"])
@pytest.mark.parametrize("hard", [3000, 9000])
def test_mlx_lm_does_not_change_the_file_limits(code: str, hard: int, tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] not in range(hard, resource.RLIM_INFINITY + 1 or 2**63):
        pytest.skip("the hard limit here is lower")
    write_model_without_weights(tmp_path / "model", UNKNOWN)
    whole = LIMITS_AFTER.format(hard=hard, code=code)
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split()[-2:] == ["700", str(hard)]


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2**43)  # a file of holes
    with pytest.raises(InvalidModel, match=r"does not fit into memory: it needs 8796\.1 GB") as error:
        load_model(tmp_path)
    assert not isinstance(error.value, NoRoom)


@pytest.mark.parametrize("folders", [1, 2], ids=["a model", "a model and its draft model"])
def test_a_model_that_would_fit_without_other_programs_has_no_room(folders: int, tmp_path: Path) -> None:
    model, *drafts = [tmp_path / str(number) for number in range(folders)]
    for folder in (model, *drafts):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate((int(0.95 * total_bytes()) - 2**20) // folders)  # holes, and all that the system is not left
    with pytest.raises(NoRoom, match="does not fit into memory"):
        load_model(model, draft=drafts[0] if drafts else None)


def test_batches_of_mlx_lm_do_not_wire_more_than_the_weights() -> None:
    import_mlx_lm()
    wire: Any = importlib.import_module("mlx_lm.generate").maybe_set_recommended_wired_limit
    assert wire.__module__ == "service.executor.loading.model"  # mlx-lm's own wires nothing without Metal either
    assert wire() is None


@pytest.mark.process
def test_libraries_are_prepared_before_mlx_and_limits_set_before_weights_are_read(tmp_path: Path) -> None:
    write_model_without_weights(tmp_path / "model", UNKNOWN)
    done = subprocess.run(
        [sys.executable, "-c", ORDER.format(load=LOAD)],
        env={name: value for name, value in os.environ.items() if name != "TRANSFORMERS_VERBOSITY"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split("\n")[-2] == "{True} True True"


def test_an_adapter_is_refused_where_the_model_is_divided(tmp_path: Path) -> None:
    ranks: Any = local_ranks(2)[0]
    with pytest.raises(InvalidModel, match="cannot be divided among ranks"):
        load_model(tmp_path, division=RankDivision(ranks, None), adapter="a")

import importlib
import logging
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from service.device.figures import DeviceFigures, DeviceKind
from service.device.machine import read_machine
from service.device.memory import DENSE_SHARE, command_buffer_variables, could_fit, dense_weights_fit, load_refusal
from service.executor.loading.failures import explained
from service.models.blas import load_openblas
from service.models.errors import InvalidModel, NoRoom
from service.models.folder import load_needs
from service.settings import Settings, WiredMemory

if TYPE_CHECKING:
    from service.executor.prefix.cache import Prefixes
    from service.profile import ModelProfile

log = logging.getLogger(__name__)

PASSIVE_TOKENIZER = {"trust_remote_code": False, "local_files_only": True}


class Division(Protocol):
    """Divides a model among processes, of which this is one."""

    @property
    def parts(self) -> int: ...
    def agree(self, here: bool) -> bool:
        """Returns True if `here` is true in all processes."""
        ...

    def apply(self, model: Any, config: dict[str, Any]) -> None:
        """Cuts a lazy model to this process's part and reads that."""
        ...

    def open_prefix_cache(self, model: Any, profile: "ModelProfile", settings: Settings) -> "Prefixes": ...


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """mlx-lm's model and tokenizer. The model scores `logits` token ids."""

    model: Any
    tokenizer: Any
    logits: int
    kind: DeviceKind
    device: str


def load_model(
    path: Path,
    *,
    dequantize_on_cpu: bool = True,
    division: Division | None = None,
    adapter: str | None = None,
    draft: Path | None = None,
    wired: WiredMemory | int = "weights",
) -> LoadedModel:
    """`adapter` is the folder of a LoRA adapter; `draft` is loaded later. Fetches nothing and runs no code of a model.
    Raises `InvalidModel`."""
    if adapter is not None and division is not None:
        raise InvalidModel(f"The adapter {adapter} cannot be divided among ranks. Start without it, or on one machine.")
    prepare_libraries()
    mlx_lm_utils = import_mlx_lm()  # before the first module that imports mlx-lm itself
    import mlx.core as mx

    from service.executor.loading.device import choose_device, read_device, set_memory_limits

    choose_device()
    device_figures, parts = read_device(), division.parts if division else 1
    _require_room(path, draft, device_figures, parts)
    set_memory_limits(device_figures, wired, load_needs(device_figures.kind, path).weight_bytes // parts)
    with explained(path):
        model, config = mlx_lm_utils.load_model(path, lazy=division is not None)
        tokenizer = mlx_lm_utils.load_tokenizer(path, PASSIVE_TOKENIZER, eos_token_ids=config.get("eos_token_id"))
    on_cpu = device_figures.kind == "cpu"
    if on_cpu and dequantize_on_cpu:
        model = _dense_on_cpu(model, division)
    if adapter is not None:
        with explained(Path(adapter)):
            model = mlx_lm_utils.load_adapters(model, adapter)
        mx.eval(model.parameters())
        log.info("Adapter %s is applied", adapter)
    if division is not None:
        division.apply(model, config)
    logits = int(config.get("text_config", config).get("vocab_size", len(tokenizer)))
    processor = "CPU" if on_cpu else "GPU"
    device = device_figures.name or processor
    log.info("Model %s is loaded on %s (%s)", path.name, device, processor)
    return LoadedModel(model=model, tokenizer=tokenizer, logits=logits, kind=device_figures.kind, device=device)


def import_mlx_lm() -> Any:
    # On import, mlx-lm sets this process's file limits, soft and hard, to (2048, 4096). That would lower the server's
    # limit, and it fails below a hard limit of 4096.
    set_limit = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        utils = importlib.import_module("mlx_lm.utils")
    finally:
        resource.setrlimit = set_limit
    # Each of its batches would wire all that Metal recommends.
    generate: Any = importlib.import_module("mlx_lm.generate")
    generate.maybe_set_recommended_wired_limit = lambda: None
    return utils


def prepare_libraries() -> None:
    """Must run before the first import of MLX and transformers."""
    report = load_openblas()
    if report.detail:
        log.log(logging.INFO if report.active else logging.WARNING, "%s", report.detail)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would warn that PyTorch is missing
    for name, value in command_buffer_variables(read_machine()).items():
        os.environ.setdefault(name, value)


def _require_room(path: Path, draft: Path | None, device_figures: DeviceFigures, parts: int) -> None:
    needs = load_needs(device_figures.kind, path, draft)
    needs = msgspec.structs.replace(needs, weight_bytes=needs.weight_bytes // parts)
    if (refusal := load_refusal(device_figures, needs)) is not None:
        error = NoRoom if could_fit(device_figures, needs) else InvalidModel
        raise error(f"{path.name} does not fit into memory: {refusal}")


def _dense_on_cpu(model: Any, division: Division | None) -> Any:
    # mlx-lm cannot expand divided layers, so a model to be divided is still lazy here.
    # MLX's CPU kernels for quantized and half-precision weights are not optimised: on two AVX-512 cores, dense f32 with
    # OpenBLAS decodes 80 times faster than 4-bit weights with f16 scales.
    import mlx.core as mx
    from mlx.utils import tree_flatten

    mlx_lm_utils: Any = importlib.import_module("mlx_lm.utils")
    weights: Any = tree_flatten(model.parameters())
    if all(array.dtype == mx.float32 for _, array in weights):
        return model
    needed = 4 * mlx_lm_utils.get_total_parameters(model) // (division.parts if division is not None else 1)
    figures = read_machine()
    fits = dense_weights_fit(figures, needed)
    if division is not None and division.agree(fits) != fits:
        log.warning("The weights stay as they are: another rank has no memory for dense ones")
        return model
    if not fits:
        log.warning(
            "The weights stay as they are: dense they would be faster on this CPU, but they need %.1f GiB of %.1f GiB "
            "free, and at most %d %% is taken",
            needed / 2**30,
            (figures.free or 0) / 2**30,
            DENSE_SHARE * 100,
        )
        return model
    model = mlx_lm_utils.dequantize_model(model)
    model.set_dtype(mx.float32)
    if division is None:
        mx.eval(model.parameters())
        mx.clear_cache()
    log.info("The weights are dense f32 (%.1f GiB), which is fastest on a CPU", needed / 2**30)
    return model

"""MLX's part of the device. `python -m service.executor.loading.device` prints its figures after a product on it."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

import mlx.core as mx
import msgspec

from service.device.figures import DeviceFigures, DeviceKind
from service.device.machine import DEVICE_VARIABLE, read_machine
from service.device.memory import buffer_limit_bytes, usable_bytes, wired_bytes
from service.executor.loading.simulated_mlx import SimulatedMlx
from service.settings import WiredMemory

log = logging.getLogger(__name__)

Mlx = ModuleType | SimulatedMlx


def choose_device(environ: Mapping[str, str] = os.environ, mlx: Mlx = mx) -> None:
    """Must run before MLX computes anything."""
    if environ.get(DEVICE_VARIABLE) == "cpu":
        mlx.set_default_device(mlx.cpu)


def device_kind(mlx: Mlx = mx) -> DeviceKind:
    if mlx.default_device() == mlx.cpu:
        return "cpu"
    return "metal" if mlx.metal.is_available() else "cuda"


def read_device(mlx: Mlx = mx) -> DeviceFigures:
    """Reads the machine and the device that MLX computes on."""
    kind, info = device_kind(mlx), mlx.device_info()
    memory = {} if kind == "cpu" else info
    return msgspec.structs.replace(
        read_machine(),
        kind=kind,
        name=str(info.get("device_name", "")),
        recommended=_bytes(memory, "max_recommended_working_set_size") or None,
        card_total=_bytes(memory, "total_memory"),
        card_free=_bytes(memory, "free_memory"),
        active=mlx.get_active_memory(),
        buffers=mlx.get_cache_memory(),
    )


def _multiply() -> None:
    mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))


def try_device(
    environ: Mapping[str, str] = os.environ, mlx: Mlx = mx, compute: Callable[[], None] = _multiply
) -> DeviceFigures:
    """Computes on the device that an engine would choose, and reads it."""
    choose_device(environ, mlx)
    compute()
    return read_device(mlx)


def _bytes(info: dict[str, str | int], key: str) -> int | None:
    return int(info[key]) if key in info else None


def set_memory_limits(figures: DeviceFigures, wired: WiredMemory | int, weight_bytes: int, mlx: Mlx = mx) -> None:
    """Must run before the weights are read."""
    mlx.set_cache_limit(buffer_limit_bytes(figures))
    limit = wired_bytes(figures, wired, weight_bytes)
    if limit is None:
        return
    try:
        mlx.set_wired_limit(limit)
    except (RuntimeError, ValueError) as exc:  # before macOS 15, or above `iogpu.wired_limit_mb`
        log.warning("The model's memory could not be wired, which makes the first tokens after a pause slow: %s", exc)


def room_bytes() -> int | None:
    """Returns the bytes that can still be allocated, MLX's freed buffers included; None if unknown."""
    return usable_bytes(read_device())


def held_bytes() -> int:
    return mx.get_active_memory() + mx.get_cache_memory()


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(try_device()).decode() + "\n")

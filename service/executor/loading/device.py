"""MLX's part of the device. `python -m service.executor.loading.device` prints its figures after a product on it."""

import logging
import sys
from typing import Any

import mlx.core as mx
import msgspec

from service.device.figures import DeviceFigures
from service.device.machine import read_machine
from service.device.memory import buffer_limit_bytes, usable_bytes, wired_bytes
from service.settings import WiredMemory

log = logging.getLogger(__name__)


def read_device() -> DeviceFigures:
    """Reads the machine and the device that MLX computes on."""
    info = mx.device_info()
    machine = msgspec.structs.replace(
        read_machine(),
        name=str(info.get("device_name", "")),
        active=mx.get_active_memory(),
        buffers=mx.get_cache_memory(),
    )
    if mx.default_device() == mx.cpu:
        return machine
    if mx.metal.is_available():
        recommended = info.get("max_recommended_working_set_size")
        return msgspec.structs.replace(machine, kind="metal", recommended=None if not recommended else int(recommended))
    return msgspec.structs.replace(
        machine, kind="cuda", card_total=_integer(info, "total_memory"), card_free=_integer(info, "free_memory")
    )


def _integer(info: dict[str, Any], key: str) -> int | None:
    return int(info[key]) if key in info else None


def set_memory_limits(figures: DeviceFigures, wired: WiredMemory | int, weight_bytes: int) -> None:
    """Must run before the weights are read."""
    mx.set_cache_limit(buffer_limit_bytes(figures))
    limit = wired_bytes(figures, wired, weight_bytes)
    if limit is None:
        return
    try:
        mx.set_wired_limit(limit)
    except (RuntimeError, ValueError) as exc:  # before macOS 15, or above `iogpu.wired_limit_mb`
        log.warning("The model's memory could not be wired, which makes the first tokens after a pause slow: %s", exc)


def room_bytes() -> int | None:
    """Returns the bytes that can still be allocated, MLX's freed buffers included; None if unknown."""
    return usable_bytes(read_device())


def held_bytes() -> int:
    return mx.get_active_memory() + mx.get_cache_memory()


if __name__ == "__main__":
    mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
    sys.stdout.write(msgspec.json.encode(read_device()).decode() + "\n")

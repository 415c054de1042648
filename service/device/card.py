"""An NVIDIA card's memory, read by NVML."""

import ctypes
import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import msgspec

from service.device.figures import DeviceFigures
from service.device.machine import DEVICE_VARIABLE, metal_limit_mib, read_machine
from service.device.memory import MIB


class _NvmlMemory(ctypes.Structure):
    # `nvmlMemory_t` of nvml.h
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def read_engines_device() -> DeviceFigures:
    """Does not load MLX, so Metal's limit is known only if it was changed."""
    machine = read_machine()
    if os.environ.get(DEVICE_VARIABLE) == "cpu":
        return machine
    if machine.system == "darwin":
        return with_metal(machine, metal_limit_mib())
    if not _mlx_has_cuda() or (nvml := _open_nvml()) is None:
        return machine
    return with_card(machine, nvml, os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def with_metal(machine: DeviceFigures, limit_mib: int | None) -> DeviceFigures:
    # Metal recommends what `iogpu.wired_limit_mb` allows, unless it is 0.
    return msgspec.structs.replace(machine, kind="metal", recommended=limit_mib * MIB if limit_mib else None)


def with_card(machine: DeviceFigures, nvml: Any, visible: str) -> DeviceFigures:
    """`visible` is CUDA_VISIBLE_DEVICES: indexes or UUIDs."""
    # MLX asks NVML too, and uses the first visible card. Without the variable that is the driver's first one, unless
    # the cards differ: CUDA begins with the fastest.
    first = visible.split(",")[0].strip()
    card, memory = ctypes.c_void_p(), _NvmlMemory()
    if first and not first.isdigit():
        code = nvml.nvmlDeviceGetHandleByUUID(first.encode(), ctypes.byref(card))
    else:
        code = nvml.nvmlDeviceGetHandleByIndex_v2(int(first or 0), ctypes.byref(card))
    if code or nvml.nvmlDeviceGetMemoryInfo(card, ctypes.byref(memory)):
        return machine
    return msgspec.structs.replace(machine, kind="cuda", card_total=memory.total, card_free=memory.free)


def _mlx_has_cuda() -> bool:
    # On Linux MLX has a build for the CPU and one for CUDA, and only one of them may be installed.
    try:
        distribution("mlx-cpu")
    except PackageNotFoundError:
        return True
    return False


def _open_nvml() -> Any:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return None if nvml.nvmlInit_v2() else nvml

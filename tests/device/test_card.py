"""A card's figures come from NVML, of which only a stand-in is here."""

from typing import Any

import pytest

from service.device.card import read_engines_device, with_card, with_metal
from service.device.machine import read_machine
from tests.device.machines import GIB, linux

CARDS = {0: (24, 20), 1: (80, 7)}
UUIDS = {b"GPU-first": 0, b"GPU-second": 1}


class Nvml:
    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802 - NVML's name
        handle._obj.value = index + 1
        return 0 if index in CARDS else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802 - NVML's name
        return self.nvmlDeviceGetHandleByIndex_v2(UUIDS.get(uuid, 9), handle)

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802 - NVML's name
        total, free = CARDS[handle.value - 1]
        memory._obj.total, memory._obj.free, memory._obj.used = total * GIB, free * GIB, (total - free) * GIB
        return 0


@pytest.mark.parametrize(
    ("visible", "total", "free"),
    [("", 24, 20), ("0,1", 24, 20), ("1,0", 80, 7), (" 1", 80, 7), ("GPU-second,GPU-first", 80, 7)],
)
def test_the_card_that_mlx_uses_is_the_first_visible_one(visible: str, total: int, free: int) -> None:
    figures = with_card(linux(16), Nvml(), visible)
    assert (figures.kind, figures.card_total, figures.card_free) == ("cuda", total * GIB, free * GIB)
    assert figures.free == linux(16).free


@pytest.mark.parametrize("visible", ["7", "-1", "NoDevFiles", "GPU-other"])
def test_without_such_a_card_the_systems_memory_counts(visible: str) -> None:
    assert with_card(linux(16), Nvml(), visible) == linux(16)


@pytest.mark.parametrize(("limit_mib", "recommended"), [(None, None), (0, None), (28672, 28 * GIB)])
def test_metal_recommends_the_limit_that_was_set(limit_mib: int | None, recommended: int | None) -> None:
    figures = with_metal(linux(32), limit_mib)
    assert (figures.kind, figures.recommended) == ("metal", recommended)


def test_mlx_for_the_cpu_needs_no_card() -> None:
    read, machine = read_engines_device(), read_machine()
    assert (read.kind, read.total, read.card_free) == ("cpu", machine.total, None)

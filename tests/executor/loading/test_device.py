"""MLX's part of a reading, on the machines of the table."""

import logging
from typing import Any

import msgspec
import pytest

from service.device.figures import DeviceFigures, DeviceKind
from service.device.memory import buffer_limit_bytes, usable_bytes
from service.executor.loading.device import choose_device, device_kind, read_device, set_memory_limits, try_device
from service.executor.loading.simulated_mlx import SimulatedMlx
from tests.device.machines import GIB, MACHINES


def of_mlx(figures: DeviceFigures) -> dict[str, Any]:
    names = ("kind", "name", "recommended", "card_total", "card_free", "active", "buffers")
    return {name: getattr(figures, name) for name in names}


@pytest.mark.parametrize("name", MACHINES)
def test_each_kind_of_device_is_read(name: str) -> None:
    figures = msgspec.structs.replace(MACHINES[name], active=3 * GIB, buffers=GIB)
    mlx = SimulatedMlx(figures)
    assert device_kind(mlx) == figures.kind
    assert of_mlx(read_device(mlx)) == of_mlx(figures)


@pytest.mark.parametrize("name", MACHINES)
def test_a_variable_keeps_mlx_off_the_gpu(name: str) -> None:
    mlx = SimulatedMlx(MACHINES[name])
    choose_device({}, mlx)
    assert device_kind(mlx) == MACHINES[name].kind
    choose_device({"ANYCLAUDE_DEVICE": "cpu"}, mlx)
    figures = read_device(mlx)
    assert (figures.kind, figures.recommended, figures.card_total, figures.card_free) == ("cpu", None, None, None)


@pytest.mark.parametrize("name", MACHINES)
def test_doctor_tries_the_device_of_the_engine(name: str) -> None:
    mlx = SimulatedMlx(MACHINES[name])
    tried: list[DeviceKind] = []
    figures = try_device({"ANYCLAUDE_DEVICE": "cpu"}, mlx, lambda: tried.append(device_kind(mlx)))
    assert [figures.kind] == tried == ["cpu"]


def test_a_card_that_does_not_report_its_memory_limits_nothing() -> None:
    silent = msgspec.structs.replace(MACHINES["RTX 24 GB"], card_total=None, card_free=None)
    assert usable_bytes(read_device(SimulatedMlx(silent))) is None


@pytest.mark.parametrize("name", MACHINES)
def test_metal_alone_wires_the_weights(name: str) -> None:
    figures = MACHINES[name]
    mlx = SimulatedMlx(figures)
    set_memory_limits(figures, "weights", 2 * GIB, mlx)
    wired = {"wired": 2 * GIB} if figures.kind == "metal" else {}
    assert mlx.limits == {"buffers": buffer_limit_bytes(figures), **wired}


def test_a_system_that_wires_less_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    figures = MACHINES["M1 8 GB"]
    mlx = SimulatedMlx(figures, most_wired=GIB)
    with caplog.at_level(logging.WARNING):
        set_memory_limits(figures, "weights", 2 * GIB, mlx)
    assert mlx.limits == {"buffers": buffer_limit_bytes(figures)}
    assert "at most 1073741824 bytes can be wired" in caplog.text

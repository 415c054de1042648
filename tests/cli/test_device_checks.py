"""Doctor's judgement of machines that are not at hand."""

import socket
from pathlib import Path

import msgspec
import pytest

from service.cli.checks.device import MacFacts, ModelNeeds, computes_on, mac, memory, reinstallation, wheel_macos
from service.cli.checks.setup import port
from service.settings import Settings
from tests.device.machines import MACHINES, linux

SOUND = MacFacts(macos=(26, 2), machine="arm64", translated=False, wheel=(26, 0))
CODER_30B = ModelNeeds(weight_bytes=17_200_000_000, token_bytes=98_304, context_length=262_144)


@pytest.mark.parametrize(
    ("changes", "chip", "status", "says"),
    [
        ({}, "Apple M4 Max", "ok", "macOS 26.2, Apple M4 Max, mlx built for macOS 26.0"),
        ({"macos": (14, 6), "wheel": (14, 0)}, "Apple M1", "ok", "macOS 14.6"),
        ({"translated": True, "machine": "x86_64"}, "", "failed", "Rosetta"),
        ({"machine": "x86_64"}, "", "failed", "an Intel processor"),
        ({"macos": (13, 7), "wheel": ()}, "Apple M1", "failed", "macOS 13.7"),
        ({"macos": (15, 6)}, "Apple M2", "failed", "mlx built for macOS 26.0"),
        ({"wheel": (15, 0)}, "Apple M5", "warning", "mlx built for macOS 15.0"),
        ({"wheel": (15, 0)}, "Apple M4", "ok", "mlx built for macOS 15.0"),
        ({"wheel": ()}, "Apple M5", "ok", "mlx built for macOS ?"),
    ],
)
def test_a_mac(changes: dict[str, object], chip: str, status: str, says: str) -> None:
    result = mac(msgspec.structs.replace(SOUND, **changes), chip, "pip install it")
    assert result.status == status
    assert says in result.found
    assert bool(result.advice) == (status != "ok")


@pytest.mark.parametrize("macos", [(15, 6), (26, 2)])
def test_the_wheel_for_another_macos_is_replaced_by_a_command(macos: tuple[int, int]) -> None:
    wheel = (26, 0) if macos < (26, 0) else (15, 0)
    result = mac(msgspec.structs.replace(SOUND, macos=macos, wheel=wheel), "Apple M5", "pip install it")
    assert result.advice.endswith(": pip install it")


@pytest.mark.parametrize(
    ("has_pip", "command"),
    [
        (True, "'/my env/python' -m pip install --force-reinstall --no-deps --no-cache-dir mlx-metal==0.32.4"),
        (False, "uv pip install --python '/my env/python' --reinstall --no-deps --no-cache mlx-metal==0.32.4"),
    ],
)
def test_the_wheel_is_installed_again_in_the_same_version_for_this_python(has_pip: bool, command: str) -> None:
    found = reinstallation("mlx-metal==0.32.4", "/my env/python", has_pip=has_pip)
    assert found == f"SYSTEM_VERSION_COMPAT=0 {command}"


def test_the_system_that_a_wheel_was_built_for() -> None:
    assert wheel_macos("py3-none-macosx_26_0_arm64") == (26, 0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("M4 Max 48 GB", "mlx 1, on the GPU, by Metal (Apple M4 Max)"),
        ("RTX 24 GB", "mlx 1, on the GPU, by CUDA (RTX 4090)"),
        ("Linux 64 GB", "mlx 1, on the CPU"),
    ],
)
def test_what_mlx_computes_on(name: str, says: str) -> None:
    result = computes_on(MACHINES[name], "mlx 1", None)
    assert (result.status, result.found) == ("ok", says)


def test_the_cpu_of_a_mac_is_a_failure() -> None:
    figures = msgspec.structs.replace(MACHINES["M4 Max 48 GB"], kind="cpu", recommended=None)
    assert computes_on(figures, "mlx 1", None).status == "failed"


@pytest.mark.parametrize(
    ("name", "status", "advice"),
    [("M4 Max 48 GB", "warning", "To use the GPU, unset ANYCLAUDE_DEVICE."), ("Linux 64 GB", "ok", "")],
)
def test_a_cpu_that_was_asked_for_is_no_failure(name: str, status: str, advice: str) -> None:
    figures = msgspec.structs.replace(MACHINES[name], kind="cpu", recommended=None)
    result = computes_on(figures, "mlx 1", "cpu")
    assert (result.status, result.advice) == (status, advice)
    assert result.found.endswith("as ANYCLAUDE_DEVICE=cpu demands")


def test_memory_names_the_context_that_fits() -> None:
    on_32 = memory(MACHINES["M1 Pro 32 GB"], CODER_30B)
    assert on_32.status == "ok"
    assert on_32.found == (
        "27.5 GB of 34.4 GB is free, and Metal recommends at most 22.9 GB. Beside weights of 17.2 GB, a context of "
        "52,244 tokens fits, of the model's 262,144. 78,458 fit if you raise Metal's limit until the next restart: "
        "sudo sysctl iogpu.wired_limit_mb=28672"
    )
    # What is free cuts the context here.
    assert memory(MACHINES["M4 Max 48 GB"], CODER_30B).found.endswith("196,423 tokens fits, of the model's 262,144")
    assert memory(MACHINES["M5 Max 128 GB"], CODER_30B).found.endswith("a context of 262,144 tokens fits")
    assert memory(linux(64), None).found == "55.0 GB of 68.7 GB is free"


def test_a_model_that_does_not_fit_is_a_failure() -> None:
    result = memory(MACHINES["M3 24 GB"], CODER_30B)
    assert result.status == "failed"
    assert "sysctl iogpu.wired_limit_mb=20480" in result.found


def test_another_server_behind_localhost_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        number = other.getsockname()[1]
        result = port(Settings(home=tmp_path, port=number, base_url=f"http://127.0.0.1:{number}/v1"))
    assert result.status == "warning"
    assert f"[::1]:{number}" in result.found

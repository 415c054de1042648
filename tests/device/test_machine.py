import sys
from pathlib import Path

import psutil
import pytest

from service.device.machine import container_left_bytes, metal_limit_mib, read_machine, total_bytes


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "1000\n", "memory.current": "400\n", "memory.stat": "anon 300\ninactive_file 90\n"}, 690),
        ({"memory.max": "1000\n", "memory.current": "1200\n"}, 0),
        ({"memory.max": "1000\n"}, None),
    ],
    ids=["no control group", "no limit", "a limit", "with droppable pages", "above it", "unreadable"],
)
def test_what_is_left_in_a_container(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert container_left_bytes(tmp_path) == left


def test_a_reading_of_this_machine_is_whole() -> None:
    machine = read_machine()
    assert machine.cores >= 1
    assert 0 < machine.own < machine.total == total_bytes()
    assert machine.free is None or 0 < machine.free <= machine.total


def test_free_and_own_memory_of_a_mac_are_read_from_psutil() -> None:
    machine, mac = read_machine(), read_machine("darwin")
    assert (mac.system, mac.cores, mac.total) == ("darwin", machine.cores, machine.total)
    assert mac.free is not None
    assert 0 < mac.free < psutil.virtual_memory().total
    assert 0.5 < mac.own / machine.own < 2


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        ('[ "$*" = "-n iogpu.wired_limit_mb" ] && echo 28672', 28672),
        ("echo 0", 0),
        ("echo unknown oid >&2; exit 1", None),
    ],
    ids=["raised", "default", "Intel"],
)
def test_metals_limit_is_what_sysctl_says(script: str, limit: int | None, tmp_path: Path) -> None:
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(f"#!/bin/sh\n{script}\n")
    sysctl.chmod(0o700)
    assert metal_limit_mib("darwin", str(sysctl)) == limit
    assert metal_limit_mib("darwin", str(tmp_path / "missing")) is None
    assert metal_limit_mib("linux", str(sysctl)) is None


@pytest.mark.skipif(sys.platform != "darwin", reason="psutil reads wired memory on macOS")
def test_wired_memory_of_a_mac_is_read() -> None:
    machine = read_machine()
    assert machine.wired is not None
    assert 0 < machine.wired < machine.total

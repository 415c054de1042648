import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.device.machine import usable_cores
from service.models.blas import MISSING, TOO_LATE, BlasReport, load_openblas

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="MLX needs no OpenBLAS elsewhere")


def in_fresh_process(code: str, **environment: str) -> str:
    """What `code` prints: a library once loaded stays, so every case needs its own process."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return result.stdout


@linux_only
def test_mlx_calls_openblas_when_it_was_loaded_first(tmp_path: Path) -> None:
    in_fresh_process(
        "from service.models.blas import load_openblas\n"
        "assert load_openblas().active\n"
        "import mlx.core as mx\n"
        "mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))\n",
        LD_DEBUG="bindings",
        LD_DEBUG_OUTPUT=str(tmp_path / "bindings"),
    )
    lines = "".join(path.read_text() for path in tmp_path.iterdir()).splitlines()
    bound = [line for line in lines if "libmlx" in line.split(" to ")[0] and "`cblas_sgemm'" in line]
    assert bound
    assert all("libopenblas" in line.split(" to ")[1] for line in bound)


@linux_only
def test_loading_never_imports_mlx_and_reports_the_same_again() -> None:
    code = (
        "import sys; from service.models.blas import load_openblas\n"
        "first = load_openblas(); second = load_openblas()\n"
        "print(first == second, first.active, 'mlx.core' in sys.modules)"
    )
    assert in_fresh_process(code).split() == ["True", "True", "False"]


@linux_only
def test_after_mlx_it_is_too_late() -> None:
    code = "import mlx.core; from service.models.blas import load_openblas; print(load_openblas().detail)"
    assert in_fresh_process(code).strip() == TOO_LATE


@linux_only
def test_the_users_thread_count_counts() -> None:
    code = "from service.models.blas import load_openblas; print(load_openblas().threads)"
    assert int(in_fresh_process(code, OPENBLAS_NUM_THREADS="1")) == 1


@linux_only
def test_products_of_several_threads_get_one_thread_each() -> None:
    code = (
        "from service.models.blas import load_openblas, one_thread_a_product, openblas_threads\n"
        "before = openblas_threads(); load_openblas()\n"
        "with one_thread_a_product(): print(before, openblas_threads())\n"
        "print(openblas_threads())"
    )
    assert in_fresh_process(code, OPENBLAS_NUM_THREADS="2").split() == ["0", "1", "2"]


@linux_only
def test_a_missing_library_is_reported_with_the_way_out() -> None:
    code = "from service.models.blas import load_openblas; print(load_openblas(('libnothing.so.9',)))"
    assert in_fresh_process(code).strip() == str(BlasReport(detail=MISSING))
    assert "apt-get install libopenblas0" in MISSING


@linux_only
def test_a_library_without_blas_is_not_taken_for_it() -> None:
    assert "libc.so.6" not in load_openblas(("libc.so.6",)).library


@pytest.mark.parametrize(
    ("cpu_max", "most"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("6400000 100000", None), ("nonsense", None)],
)
def test_cores_follow_the_containers_quota(tmp_path: Path, cpu_max: str, most: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(cpu_max + "\n")
    everything = usable_cores(tmp_path / "missing")
    assert everything >= 1
    assert usable_cores(quota) == (everything if most is None else most)

"""MLX's Linux wheel is linked against the reference BLAS. A library that is loaded first with global symbols replaces
the symbols of later ones (ELF interposition), so MLX calls OpenBLAS. macOS has Accelerate and Metal."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from service.device.machine import usable_cores

# Debian, Arch and conda; Fedora's threaded build; a development package.
LIBRARIES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")

MISSING = (
    "OpenBLAS was not found. Without it, prompts are read about 13 times slower and answers written half as fast. "
    "Install it with `apt-get install libopenblas0` (Debian, Ubuntu) or `dnf install openblas` (Fedora)."
)
TOO_LATE = "OpenBLAS was not loaded: MLX was imported before it and cannot use it any more."


class BlasReport(msgspec.Struct, frozen=True, kw_only=True):
    """`detail` is for people, perhaps empty."""

    active: bool = False
    library: str = ""
    threads: int = 0
    detail: str = ""


def load_openblas(libraries: tuple[str, ...] = LIBRARIES) -> BlasReport:
    """Loads the first of `libraries` that exists, for the whole process. Call it before MLX is imported. Never
    raises."""
    if sys.platform != "linux":
        return BlasReport()
    already = _open_first(libraries, os.RTLD_NOLOAD)
    if already is None and "mlx.core" in sys.modules:
        return BlasReport(detail=TOO_LATE)
    found = already or _open_first(libraries)
    if found is None:
        return BlasReport(detail=MISSING)
    name, library = found
    if already is None and not any(os.environ.get(variable) for variable in THREAD_VARIABLES):
        library.openblas_set_num_threads(usable_cores())
    threads = int(library.openblas_get_num_threads())
    return BlasReport(active=True, library=name, threads=threads, detail=f"OpenBLAS ({name}) with {threads} threads.")


def openblas_threads() -> int:
    """0 if OpenBLAS is not loaded."""
    found = _open_first(LIBRARIES, os.RTLD_NOLOAD)
    return 0 if found is None else int(found[1].openblas_get_num_threads())


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    # Products that use several threads wait for each other.
    found = _open_first(LIBRARIES, os.RTLD_NOLOAD)
    if found is None:
        yield
        return
    _, library = found
    threads = int(library.openblas_get_num_threads())
    library.openblas_set_num_threads(1)
    try:
        yield
    finally:
        library.openblas_set_num_threads(threads)


def _open_first(libraries: tuple[str, ...], mode: int = 0) -> tuple[str, ctypes.CDLL] | None:
    for name in libraries:
        try:
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL | mode)
        except OSError:
            continue
        if hasattr(library, "cblas_sgemm") and hasattr(library, "openblas_set_num_threads"):
            return name, library
    return None

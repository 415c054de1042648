import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.case import Environment

PACKAGES = ("anyclaude", "mlx", "mlx-lm", "starlette", "hypercorn", "msgspec", "diskcache", "redis")


def read_environment() -> Environment:
    return Environment(
        date=datetime.now(UTC).date().isoformat(),
        system=f"{platform.system()} {platform.machine()}",
        cpu_count=os.cpu_count() or 1,
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

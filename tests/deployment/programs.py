"""Programs that the deployment is made of. Where one is missing its tests are skipped; on CI they fail."""

import os
import shutil
import sys
from pathlib import Path

import pytest

# Debian keeps servers out of a user's PATH.
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def require(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and CI must run these tests")
        pytest.skip(f"{name} is not installed")
    return found

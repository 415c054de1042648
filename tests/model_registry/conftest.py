"""Engine processes under test import their executors from the tests."""

import pytest

from service.own_python import OWN_FOLDER


@pytest.fixture(autouse=True)
def tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(OWN_FOLDER))

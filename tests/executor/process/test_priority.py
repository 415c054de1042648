"""The priority of an engine process, by its device."""

import pytest

from service.device.figures import DeviceKind
from service.executor.process.priority import NICENESS_ON_CPU, added_niceness


@pytest.mark.parametrize(("kind", "added"), [("cpu", NICENESS_ON_CPU), ("metal", 0), ("cuda", 0)])
def test_only_an_engine_on_a_cpu_gives_way(kind: DeviceKind, added: int) -> None:
    assert added_niceness(kind) == added

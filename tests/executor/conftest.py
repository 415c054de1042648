import pytest


@pytest.fixture(autouse=True, scope="session")
def _computes_where_the_engines_do() -> None:
    from service.executor.loading.device import choose_device

    choose_device()

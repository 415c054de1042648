import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _computes_on_the_cpu() -> None:
    """Tests compare tokens of batches, lone sequences and kept states. A GPU has other kernels for each, which
    differ in the last bits. ANYCLAUDE_TEST_DEVICE=gpu leaves MLX its own choice."""
    if os.environ.get("ANYCLAUDE_TEST_DEVICE") != "gpu":
        import mlx.core as mx

        mx.set_default_device(mx.cpu)

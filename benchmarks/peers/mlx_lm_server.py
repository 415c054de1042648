"""`python -m benchmarks.peers.mlx_lm_server PORT MODEL CONCURRENCY` runs `mlx_lm.server` with OpenBLAS, as in our
server. Otherwise the comparison would be one of matrix products."""

import os
import sys

from service.models.blas import load_openblas


def main(port: str, model: str, concurrency: str) -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    load_openblas()
    from mlx_lm import server

    sys.argv = ["mlx_lm.server", "--model", model, "--port", port, "--log-level", "WARNING"]
    sys.argv += ["--decode-concurrency", concurrency, "--prompt-concurrency", concurrency]
    server.main()


if __name__ == "__main__":
    main(*sys.argv[1:])

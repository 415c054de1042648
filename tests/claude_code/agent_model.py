"""A tiny Llama that is an agent: after a user's turn it calls Bash to write a file, then Read, then it says that it is
done.

Real weights and real inference with nothing scripted, so that Claude Code's whole loop can be shown on any machine.

    python -m tests.claude_code.agent_model FOLDER

trains it into `FOLDER`, an ordinary MLX model folder, within half a minute on two cores.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from service.models.blas import load_openblas

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / "tests" / ".cache"
SOURCES = ("agent_conversation.py", "agent_training.py", "../../LICENSE")
"""What the model depends on; its tokenizer has learnt from the licence."""

TRAINING_SECONDS = 600
"""Twenty times what it takes alone: other tests may keep the machine busy."""


def ensure_agent_model(cache: Path) -> Path:
    """The model's folder under `cache`, trained the first time, in a process of its own. Safe to interrupt, and to run
    in several processes at once."""
    digest = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in SOURCES)).hexdigest()
    folder = cache / f"agent-{digest[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as workshop:
            made = Path(workshop) / "agent"
            command = [sys.executable, "-m", __spec__.name, str(made)]
            subprocess.run(command, cwd=PROJECT, check=True, timeout=TRAINING_SECONDS)
            publish(made, folder)
    return folder


def publish(made: Path, folder: Path) -> None:
    """Whoever comes first; both have made the same."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def main(folder: Path) -> None:
    load_openblas()

    from tests.claude_code.agent_training import write_agent_model

    folder.mkdir(parents=True)
    write_agent_model(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

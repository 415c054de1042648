import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from service.models.errors import InvalidModel, ModelError

SHOWN_CHARACTERS = 200


def one_line(exc: BaseException) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text.rstrip(".")[:SHOWN_CHARACTERS]


def advice(exc: BaseException) -> str:
    text = str(exc).lower()
    if isinstance(exc, MemoryError) or "alloc" in text or "out of memory" in text:
        return "It needs more memory than there is: choose a smaller or more strongly quantized model."
    if "metal_kernel" in text or "no metal" in text or "cuda" in text:
        return "It needs a GPU kernel that this machine does not have: choose another model."
    return "Choose another model, or another version of mlx-lm."


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except ModelError:
        raise
    except (Exception, SystemExit) as exc:  # some model files print and call `sys.exit` when they are imported
        said = " ".join(printed.getvalue().split()[-30:])
        reason = one_line(exc) if not isinstance(exc, SystemExit) else f"mlx-lm gave up ({said or 'without a reason'})"
        raise InvalidModel(f"{reason} (in {path}). {advice(exc)}") from exc

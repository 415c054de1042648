import os
from pathlib import Path

from service.cli.exits import Exit, Failure
from service.errors import ServiceError
from service.explain import Difference, differences, first_token_difference
from service.generation import GenerationRequest, SamplingParams
from service.models.errors import ModelError
from service.models.location import find_local_model
from service.normalize import normalize
from service.settings import Settings


def read_request(path: Path) -> GenerationRequest:
    from service.request_files import NoRequest, read_request_file

    try:
        return normalize(read_request_file(path).decode(SamplingParams()))
    except NoRequest as exc:
        raise Failure(Exit.USAGE, str(exc)) from None
    except OSError as exc:
        raise Failure(Exit.USAGE, f"{path}: {exc.strerror}.") from None
    except ServiceError as exc:
        raise Failure(Exit.USAGE, f"{path}: {exc}") from None


def explain_requests(
    a: GenerationRequest, b: GenerationRequest, settings: Settings | None, *, show_all: bool = False
) -> str:
    """`settings` name the model whose tokenizer compares the prompts; None skips that."""
    found = list(differences(a, b))
    if not found:
        return "The two requests are the same for both caches: one key, one prompt."
    shown = found if show_all else found[:1]
    lines = [f"They part in {len(found)} place{'s' if len(found) > 1 else ''}, so their response-cache keys differ."]
    lines += [("First: " if i == 0 else "Then:  ") + _indented(difference) for i, difference in enumerate(shown)]
    if settings is not None:
        lines.append(_by_token(a, b, settings))
    return "\n".join(lines)


def _by_token(a: GenerationRequest, b: GenerationRequest, settings: Settings) -> str:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would warn that PyTorch is missing
    from service.executor.prompt.renderer import load_renderer

    folder = find_local_model(settings.model, settings.home)
    if folder is None or not folder.is_dir():
        return f"Tokens are not compared: {settings.model or 'the demo model'} is not on this machine."
    try:
        renderer = load_renderer(folder, context_length=2**31)
        left, right = (renderer.render(request).tokens for request in (a, b))
    except (ServiceError, ModelError, OSError, ValueError) as exc:
        return f"Tokens are not compared: {exc}"
    at = first_token_difference(left, right)
    if at is None:
        return f"Their prompts are the same {len(left)} tokens."
    return (
        f"Their prompts share the first {at} tokens, of {len(left)} and {len(right)}: "
        "that much the prefix cache can reuse."
    )


def _indented(difference: Difference) -> str:
    return str(difference).replace("\n", "\n       ")

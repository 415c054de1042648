"""The formats in which models write calls. A new one is a file here, and its line in `FAMILIES`."""

from service.tool_calling.families import (
    deepseek,
    glm,
    harmony,
    hermes,
    kimi_k2,
    llama3,
    lmstudio,
    minimax,
    mistral,
    pythonic,
    qwen3_coder,
)
from service.tool_calling.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        hermes,
        qwen3_coder,
        glm,
        llama3,
        mistral,
        deepseek,
        kimi_k2,
        minimax,
        pythonic,
        harmony,
        lmstudio,
    )
}


def detect_family(template: str) -> str | None:
    """The name of the family that a model with this chat template writes; None if the template knows no calls."""
    return next((family.name for family in FAMILIES.values() if family.knows(template)), None)

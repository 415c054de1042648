"""The formats in which models write calls, one file each. A new format is a file here and a line in `FAMILIES`.

`hermes.py` is the simplest, with JSON between two tags; `qwen3_coder.py`, `glm.py` and `minimax.py` write arguments as
tags, `pythonic.py` as Python, `harmony.py` frames the whole answer. `fallbacks.py` reads what models write that know no
format.
"""

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
    """The family that a model with this chat template writes; None if the template knows no calls."""
    return next((family.name for family in FAMILIES.values() if family.knows(template)), None)

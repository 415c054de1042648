"""The formats in which models write calls, one file each. A new format is a file here and a line in `FAMILIES`.

`hermes.py` is the simplest, with JSON between two tags. `qwen3_coder.py`, `glm.py` and `minimax_m3.py` write arguments
as tags, `pythonic.py` writes Python, `harmony.py` frames the whole answer. `fallbacks.py` reads calls of models that
know no format.
"""

from service.tool_calling.families import (
    apertus,
    deepseek,
    functionary,
    gemma,
    glm,
    harmony,
    hermes,
    invoke,
    json_markers,
    kimi_k2,
    kimi_k3,
    llama3,
    minicpm5,
    minimax_m3,
    mistral,
    muse,
    pythonic,
    qwen3_coder,
    solar,
)
from service.tool_calling.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        hermes.FAMILY,
        *qwen3_coder.FAMILIES,
        *glm.FAMILIES,
        llama3.FAMILY,
        mistral.FAMILY,
        deepseek.FAMILY,
        kimi_k2.FAMILY,
        *invoke.FAMILIES,
        *pythonic.FAMILIES,
        harmony.FAMILY,
        *json_markers.FAMILIES,
        apertus.FAMILY,
        functionary.FAMILY,
        *gemma.FAMILIES,
        kimi_k3.FAMILY,
        minicpm5.FAMILY,
        minimax_m3.FAMILY,
        muse.FAMILY,
        solar.FAMILY,
    )
}


def detect_family(template: str) -> str | None:
    """Returns None if the chat template knows no calls."""
    return next((family.name for family in FAMILIES.values() if family.knows(template)), None)

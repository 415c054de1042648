"""The formats in which models write calls. A new one is a file here, and its line in `FAMILIES`."""

from service.tool_calling.families import hermes, lmstudio
from service.tool_calling.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        hermes,
        lmstudio,
    )
}


def detect_family(template: str) -> str | None:
    """The name of the family that a model with this chat template writes; None if the template knows no calls."""
    return next((family.name for family in FAMILIES.values() if family.knows(template)), None)

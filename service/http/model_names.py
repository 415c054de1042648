"""The names by which a client may ask for the loaded model. A request never loads another."""

from service.errors import SHOWN_CHARS, ModelNotFound
from service.profile import ModelProfile

ALIASES = frozenset({"default", "default_model", "current-model"})


def check_model(profile: ModelProfile, name: str | None) -> None:
    """Raises `ModelNotFound` unless `name` means the served model. All names of Claude's models (`claude-*`) do."""
    if not name or name == profile.id or name in ALIASES or name.startswith("claude-"):
        return
    if name in profile.aliases or name == profile.id.rpartition("/")[2]:
        return
    raise ModelNotFound(
        f"The model '{name[:SHOWN_CHARS]}' is not served here. Served: '{profile.id}' (also as 'default', "
        "or leave it out).",
        param="model",
    )

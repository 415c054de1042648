"""Which names a client may call the loaded model by. A request never makes the server load another."""

from service.errors import SHOWN_CHARS, ModelNotFound
from service.profile import ModelProfile

ALIASES = frozenset({"default", "default_model", "current-model"})


def check_model(profile: ModelProfile, name: str | None) -> None:
    """Raises `ModelNotFound` unless `name` means the served model. Claude Code asks for models of its own family
    (`claude-*`), also for background calls: they all mean this one."""
    if not name or name == profile.id or name in ALIASES or name.startswith("claude-"):
        return
    if name in profile.aliases or name == profile.id.rpartition("/")[2]:
        return
    raise ModelNotFound(
        f"The model '{name[:SHOWN_CHARS]}' is not served here. Served: '{profile.id}' (also as 'default', "
        "or leave it out).",
        param="model",
    )

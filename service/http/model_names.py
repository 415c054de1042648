"""The names by which a client may ask for the loaded model. A request never loads another."""

from service.errors import SHOWN_CHARS, ModelNotFound
from service.models.names import SERVED_ALIASES
from service.profile import ModelProfile

CLOUD_MODELS = ("claude-", "gpt-", "chatgpt-", "text-embedding-")


def check_model(profile: ModelProfile, name: str | None) -> None:
    """Raises `ModelNotFound` unless `name` means the served model. Names of Anthropic's and OpenAI's models do: clients
    left at their default ask for one."""
    if not name or name == profile.id or name in SERVED_ALIASES or name.startswith(CLOUD_MODELS):
        return
    if name in profile.aliases or name == profile.id.rpartition("/")[2]:
        return
    raise ModelNotFound(
        f"The model '{name[:SHOWN_CHARS]}' is not served here. Served: '{profile.id}' (also as 'default', "
        "or leave it out).",
        param="model",
    )

"""A model's name is a folder, `demo`, or a Hugging Face name such as `mlx-community/Qwen3-8B-4bit`."""

import re

DEMO = "demo"
# Clients call the served model by these names, whichever it is.
SERVED_ALIASES = frozenset({"default", "default_model", "current-model"})
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

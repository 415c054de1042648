"""Why a model cannot be served, found before it is loaded."""


class ModelError(Exception):
    """The message is for the operator: expected, found, where, what to do next."""


class ModelNotThere(ModelError):
    """Nothing exists at the given place or under the given name."""


class FetchFailed(ModelError):
    """The model could not be downloaded, or another file arrived."""


class InvalidModel(ModelError):
    """MLX cannot load what exists there."""

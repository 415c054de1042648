"""What can be wrong with a model before it is loaded."""


class ModelError(Exception):
    """The model cannot be served. The message is for the operator: expected, found, where, what to do next."""


class ModelNotThere(ModelError):
    """Nothing is at the place, or under the name, that was given."""


class FetchFailed(ModelError):
    """The model could not be downloaded, or what came is not what was expected."""


class InvalidModel(ModelError):
    """Something is there, but it is not a model that MLX can load."""

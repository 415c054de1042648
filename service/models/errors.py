class ModelError(Exception):
    """The message is for the operator: expected, found, where, what to do next."""


class ModelNotThere(ModelError): ...


class FetchFailed(ModelError): ...


class InvalidModel(ModelError): ...


class NoRoom(InvalidModel):
    """Other programs have the memory."""

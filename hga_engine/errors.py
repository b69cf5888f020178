"""Errors of the engine, each saying what was wrong and what to do."""


class EngineError(Exception):
    """Base of everything the engine raises on purpose; its text is meant for the user."""


class ModelFileError(EngineError):
    """A model directory, weight file or adapter is missing, damaged or of an unknown kind."""


class ContextFullError(EngineError):
    """More tokens were given than the engine's context holds."""


class OutOfMemoryError(EngineError):
    """The ledger predicts that the model and its K/V cannot fit the memory there is."""


class KVStoreError(EngineError):
    """A K/V tier could not be read or written."""


class SavedStateError(EngineError):
    """A saved state is damaged, cannot be read, or belongs to another model or version."""

"""What an error means for the exit code, and its lines for people."""

from hga_chat.documents import DocumentError, OverBudget
from hga_chat.settings import SettingsError
from hga_engine.errors import ContextFullError, EngineError, OutOfMemoryError

FAILURE, USAGE, UNREADABLE, OVER_BUDGET, OUT_OF_MEMORY = 1, 2, 3, 4, 5


class UsageError(Exception):
    """The command cannot be used like this."""


class OverBudgetError(Exception):
    """The documents take more tokens than there is room for."""

    def __init__(self, over: OverBudget) -> None:
        super().__init__(str(over))


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, USAGE),
    (SettingsError, USAGE),
    (DocumentError, UNREADABLE),
    (OverBudgetError, OVER_BUDGET),
    (ContextFullError, OVER_BUDGET),
    (OutOfMemoryError, OUT_OF_MEMORY),
    (MemoryError, OUT_OF_MEMORY),
)


def exit_code(error: Exception) -> int:
    """The exit code for ``error``."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)


def describe(error: Exception) -> str:
    """One or two lines: what was wrong and what to do."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "There is not enough memory. A smaller --context or --host-budget takes less."
    if isinstance(error, EngineError | OSError) or exit_code(error) != FAILURE:
        return str(error)
    name = type(error).__name__
    return f"Unexpected {name}: {error}\n'hga-chat --debug …' shows where it comes from."

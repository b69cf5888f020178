"""What an error means for the exit code, and the lines that people see."""

from hga_chat.documents import DocumentError, OverBudget
from hga_chat.settings import SettingsError
from hga_engine.errors import (
    ContextFullError,
    DamagedPageError,
    DamagedWeightsError,
    DiskSpaceError,
    EngineError,
    GpuMemoryError,
    HostBudgetError,
    HostMemoryError,
    LongContextError,
    NoGpuError,
    NotANumberError,
    OutOfMemoryError,
    SavedStateError,
    StorageError,
    WeightMemoryError,
)

FAILURE, USAGE, UNREADABLE, OVER_BUDGET, OUT_OF_MEMORY = 1, 2, 3, 4, 5
_MIB = 2**20


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
    (LongContextError, USAGE),
    (OutOfMemoryError, OUT_OF_MEMORY),
    (NoGpuError, OUT_OF_MEMORY),
    (HostBudgetError, OUT_OF_MEMORY),
    (MemoryError, OUT_OF_MEMORY),
)


def ways_out(larger_context: int | None = None, *, is_kept: bool = False) -> str:
    """Say what a person can do when a session is full.

    Args:
        larger_context: a context that fits in memory; None: none is known.
        is_kept: whether it takes no new prefill.
    """
    text = (
        "/clear forgets the turns and keeps the documents; /edit takes the last one back. "
        "'hga-chat sessions fork --turns N' branches from an earlier turn."
    )
    if larger_context is None:
        return text
    cost = "nothing is read again" if is_kept else "all is read again"
    return f"{text} /context {larger_context} makes room for more; {cost}."


class SessionFullError(ContextFullError):
    """A question does not fit in a session that has turns."""

    def __init__(
        self,
        tokens: int,
        held: int,
        context: int,
        turn_tokens: int,
        advice: str,
    ) -> None:
        """Describe what does not fit, see ``ContextFullError``.

        Args:
            tokens: tokens that were to be added.
            held: tokens already in the session.
            context: tokens that the session can hold.
            turn_tokens: those held by turns.
            advice: see ``ways_out``.
        """
        super().__init__(tokens, held, context)
        self.args = (f"{self} The turns take {turn_tokens:,} of them.",)
        self.advice = advice


def exit_code(error: Exception) -> int:
    """The exit code for ``error``."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)


def describe(error: Exception) -> str:
    """Say in one or two lines what was wrong and what to do."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "Out of memory. Use a smaller --context or --host-budget."
    if isinstance(error, EngineError):
        advice = _advice(error)
        return f"{error}\n{advice}" if advice else str(error)
    if isinstance(error, OSError) or exit_code(error) != FAILURE:
        return str(error)
    name = type(error).__name__
    return f"Unexpected {name}: {error}\n'hga-chat --debug …' shows the traceback."


def _advice(error: EngineError) -> str | None:
    """Say what a person can do about an error of the engine; None if its text has said it."""
    match error:
        case SessionFullError():
            return error.advice
        case ContextFullError():
            return f"Use a larger --context (now {error.context:,}) or less text."
        case LongContextError():
            return f"Use --context {error.native} or less."
        case NotANumberError():
            return "The weights may be damaged: 'hga-chat models verify' checks them."
        case DamagedWeightsError():
            return "Fetch the file again."
        case NoGpuError():
            return "'hga-chat doctor' shows what there is; --device cpu works everywhere."
        case HostBudgetError():
            return "Leave --host-budget out, use a smaller --context, or use --device cpu."
        case WeightMemoryError(device_type="cpu"):
            return "Use a smaller model."
        case WeightMemoryError():
            return (
                "Close other programs that use the GPU, use a smaller model, or use --device cpu."
            )
        case HostMemoryError():
            return _host_memory_advice(error)
        case DiskSpaceError():
            context = _smaller_context(error.ledger.context)
            return f"Free space, use a larger --host-budget, or use {context}."
        case GpuMemoryError():
            return (
                f"Use {_smaller_context(error.context)}, close other programs that use the GPU, "
                "or use --device cpu."
            )
        case StorageError():
            return _storage_advice(error)
        case DamagedPageError():
            return "Run the command again; if this recurs, check the disk."
        case SavedStateError():
            return "The documents are read again when the session is next opened."
    return None


def _host_memory_advice(error: HostMemoryError) -> str:
    ledger = error.ledger
    context = _smaller_context(ledger.context)
    if ledger.weights >= error.available:
        return "The weights alone do not fit: use a smaller model."
    if ledger.kv_disk:
        return f"Use a smaller --host-budget or {context}."
    # Half of what is left for K/V, so that an open layer and the pages in transit fit as well.
    budget = (error.available - (ledger.total_host - ledger.kv_host)) // 2 // _MIB
    if budget >= 1:
        return f"Use {context}, or keep part of the K/V on disk with --host-budget {budget}M."
    return f"Use {context}."


def _storage_advice(error: StorageError) -> str:
    if error.is_saved and error.is_full:
        return (
            "Free space there: 'hga-chat sessions list' shows what sessions take, "
            "'hga-chat sessions rm' removes them. Or use --no-save."
        )
    if error.is_saved:
        return "Check that folder and its disk, or use --no-save."
    if error.is_full:
        return (
            "Free space there, set TMPDIR to a folder with more, use a larger --host-budget, "
            "or use a smaller --context."
        )
    return "Check that folder and its disk, or set TMPDIR to another folder."


def _smaller_context(context: int) -> str:
    return f"a smaller --context (now {context:,})"

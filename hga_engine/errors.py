"""Errors of the engine. Their text states facts; what to do about them is for the caller to say."""

import errno
from collections.abc import Mapping
from pathlib import Path

from hga_engine.prediction import Ledger

_GIB = 2**30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a file size limit that is exhausted."""


class EngineError(Exception):
    """Base of everything the engine raises on purpose; its text is meant for the user."""


class ModelFileError(EngineError):
    """A model directory, weight file or adapter is missing, damaged or unsupported."""


class DamagedWeightsError(ModelFileError):
    """A weight file is truncated or damaged."""


class ContextFullError(EngineError):
    """More tokens were given than the context holds."""

    def __init__(self, tokens: int, held: int, context: int) -> None:
        """Describe what does not fit.

        Args:
            tokens: tokens that were to be added.
            held: tokens already in the session.
            context: tokens that the session can hold.
        """
        super().__init__(
            f"{tokens:,} more tokens do not fit: the session holds {held:,} of {context:,}."
        )
        self.tokens = tokens
        self.held = held
        self.context = context


class LongContextError(EngineError):
    """A session is to be longer than a model can be used for."""

    def __init__(self, context: int, native: int, reason: str) -> None:
        """Describe the limit.

        Args:
            context: tokens that the session is to hold.
            native: tokens that it can hold at most.
            reason: why it cannot hold more.
        """
        super().__init__(
            f"A context of {context:,} tokens is beyond the {native:,} that this model can hold: "
            f"{reason}."
        )
        self.context = context
        self.native = native


class NotANumberError(EngineError):
    """The model's logits are NaN, or none of them is finite."""

    def __init__(self) -> None:
        super().__init__("The model's output is not a number, so no token can be drawn.")


class NoGpuError(EngineError):
    """A GPU was asked for, and none can be used."""

    def __init__(self, capability: tuple[int, int]) -> None:
        """Describe the GPU that is needed.

        Args:
            capability: the lowest CUDA compute capability that the kernels run on.
        """
        major, minor = capability
        super().__init__(
            "No usable GPU was found. The engine needs an NVIDIA GPU of compute capability "
            f"{major}.{minor} or later and a CUDA build of torch."
        )
        self.capability = capability


class FixedBudgetError(EngineError):
    """The budget of an open session was to change on a GPU, whose kernels are captured with it."""

    def __init__(self) -> None:
        super().__init__("On a GPU the budget is fixed while a session is open.")


class HostBudgetError(EngineError):
    """A host memory budget for K/V was set on a GPU, whose K/V is always all in host memory."""

    def __init__(self) -> None:
        super().__init__("On a GPU, K/V cannot exceed host memory: it is never moved to disk.")


class OutOfMemoryError(EngineError):
    """A model or session is predicted to need more memory or disk space than there is."""


class WeightMemoryError(OutOfMemoryError):
    """The weights alone do not fit."""

    def __init__(self, needed: int, free: int, device_type: str) -> None:
        """Describe what is missing.

        Args:
            needed: bytes of the weights.
            free: bytes of memory that are free.
            device_type: "cpu" for host memory, "cuda" for a GPU's.
        """
        memory = "host memory" if device_type == "cpu" else "GPU memory"
        super().__init__(f"The weights take {_gib(needed)}; {_gib(free)} of {memory} are free.")
        self.needed = needed
        self.free = free
        self.device_type = device_type


class HostMemoryError(OutOfMemoryError):
    """A full session does not fit in host memory."""

    def __init__(self, ledger: Ledger, available: int) -> None:
        """Describe what is missing.

        Args:
            ledger: the predicted bytes.
            available: bytes of host memory that the session may take, weights included.
        """
        parts = {
            "weights": ledger.weights,
            "K/V": ledger.kv_host,
            "index": ledger.index,
            "workspace": ledger.workspace,
        }
        super().__init__(
            f"Not enough memory: {_gib(ledger.total_host)} needed ({_listed(parts)}), "
            f"{_gib(available)} available."
        )
        self.ledger = ledger
        self.available = available


class DiskSpaceError(OutOfMemoryError):
    """K/V beyond the host budget does not fit on the disk."""

    def __init__(self, ledger: Ledger, free: int) -> None:
        """Describe what is missing.

        Args:
            ledger: the predicted bytes.
            free: bytes that are free where the disk tier lives.
        """
        super().__init__(
            f"Not enough disk space for K/V beyond the host budget: {_gib(ledger.kv_disk)} "
            f"needed, {_gib(free)} free."
        )
        self.ledger = ledger
        self.free = free


class GpuMemoryError(OutOfMemoryError):
    """A full session does not fit in GPU memory."""

    def __init__(self, parts: Mapping[str, int], needed: int, limit: int, context: int) -> None:
        """Describe what is missing.

        Args:
            parts: bytes by purpose.
            needed: bytes in all, with the smallest page cache.
            limit: bytes of GPU memory that may be in use.
            context: tokens that the session is to hold.
        """
        super().__init__(
            f"Not enough GPU memory: {_gib(needed)} needed ({_listed(parts)}), "
            f"{_gib(limit)} may be used."
        )
        self.parts = dict(parts)
        self.needed = needed
        self.limit = limit
        self.context = context


class KVStoreError(EngineError):
    """A K/V tier could not be read or written."""


class StorageError(KVStoreError):
    """A file of K/V could not be created, read or written."""

    def __init__(self, what: str, folder: Path, cause: Exception, *, is_saved: bool) -> None:
        """Describe the failure.

        Args:
            what: what could not be done, as the start of a sentence.
            folder: folder of the file.
            cause: the error of the system or of the library that writes the file.
            is_saved: whether the file belongs to a saved session; if not, it is temporary.
        """
        super().__init__(f"{what} in {folder}: {getattr(cause, 'strerror', None) or cause}.")
        self.folder = folder
        self.is_full = getattr(cause, "errno", None) in _DISK_FULL
        self.is_saved = is_saved


class DamagedPageError(KVStoreError):
    """A page of K/V is not what was written to the disk tier."""

    def __init__(self, page: str, folder: Path) -> None:
        """Describe the damage.

        Args:
            page: layer, KV head and group of the page.
            folder: folder of the disk tier.
        """
        super().__init__(f"K/V of {page} in {folder} is damaged: its checksum differs.")
        self.folder = folder


class SavedStateError(EngineError):
    """A saved state is damaged, cannot be read, or belongs to another model or version."""


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"

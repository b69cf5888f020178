"""What a saved session consists of."""

from dataclasses import dataclass

from hga_chat.documents import LoadedDocuments
from hga_chat.sources import Source
from hga_engine.config import RouterName
from hga_engine.errors import EngineError
from hga_engine.events import Finished


class SessionError(EngineError):
    """A saved session is damaged or cannot be kept."""


class SessionMissingError(SessionError):
    """There is no such session, or more than one."""


class SessionInUseError(SessionError):
    """Another process has the session open."""


@dataclass(frozen=True)
class Origin:
    """What a reading follows from: where documents come from, and how they are read."""

    paths: tuple[str, ...]
    """Resolved; ``-`` is standard input."""
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    model: str
    """The setting: a name or a resolved directory."""
    context: int
    router: RouterName
    budget_tokens: int
    fit: bool = False
    redact: bool = False


@dataclass(frozen=True)
class SessionInfo:
    """What stays the same for as long as a session lives."""

    id: str
    title: str
    created: str
    """UTC, as in ``2026-11-24T21:42:07Z``."""
    given: tuple[str, ...]
    """The paths as they were typed."""
    origin: Origin
    model_name: str
    fingerprint: str
    """SHA-256 over the model's files."""


@dataclass(frozen=True)
class SavedDocuments:
    """The documents' text, so that nothing else is needed to go on."""

    loaded: LoadedDocuments
    tokens: tuple[int, ...]
    """Of each document."""


@dataclass(frozen=True)
class SavedTurn:
    """One question and its answer."""

    question: str
    text: str
    sources: tuple[Source, ...]
    finished: Finished
    token_ids: tuple[int, ...]
    """The turn in the session: the question with what introduces it, and the answer."""


@dataclass(frozen=True)
class SavedTurns:
    """The turns so far."""

    updated: str
    """UTC."""
    turns: tuple[SavedTurn, ...]


@dataclass(frozen=True)
class Removed:
    """K/V that was removed to make room."""

    id: str
    title: str
    bytes: int

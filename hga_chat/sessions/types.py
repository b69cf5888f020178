"""The parts of a saved session."""

from dataclasses import dataclass

from hga_chat.documents import LoadedDocuments
from hga_chat.scope import EVERYTHING, Scope
from hga_chat.sources import Source
from hga_engine.config import RouterName
from hga_engine.errors import EngineError
from hga_engine.events import Finished


class SessionError(EngineError):
    """A saved session is damaged, or a session cannot be saved."""


class SessionMissingError(SessionError):
    """No session matches, or more than one."""


class SessionInUseError(SessionError):
    """Another process has the session open."""


@dataclass(frozen=True)
class Origin:
    """What a session's K/V depends on: where its documents come from, and how they are prefilled.

    Sessions of equal origin can continue from each other's K/V.
    """

    paths: tuple[str, ...]
    """Resolved; ``-`` is standard input."""
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    model: str
    """The model setting: a name, or a resolved directory."""
    context: int
    router: RouterName
    budget_tokens: int
    fit: bool = False
    redact: bool = False
    system: str = ""
    """Instructions before the documents; empty: those of the chat template."""


@dataclass(frozen=True)
class SessionInfo:
    """The part of a session of which only the title ever changes."""

    id: str
    title: str
    created: str
    """UTC, as in ``2026-11-24T21:42:07Z``."""
    given: tuple[str, ...]
    """The paths as the user typed them."""
    origin: Origin
    model_name: str
    fingerprint: str
    """SHA-256 over the model's files."""


@dataclass(frozen=True)
class SavedDocuments:
    """The documents with their text, so that a session continues without their files."""

    loaded: LoadedDocuments
    tokens: tuple[int, ...]
    """Token count of each document."""


@dataclass(frozen=True)
class SavedTurn:
    """One question and its answer."""

    question: str
    text: str
    sources: tuple[Source, ...]
    finished: Finished
    token_ids: tuple[int, ...]
    """The turn's tokens in the session: the prompt with the question, and the answer."""
    thought: str = ""
    """What the model thought before it answered."""
    scope: Scope = EVERYTHING
    """The documents that it could attend to."""


@dataclass(frozen=True)
class SavedTurns:
    """The turns so far."""

    updated: str
    """UTC."""
    turns: tuple[SavedTurn, ...]
    dropped: tuple[str, ...] = ()
    """Paths of the documents that are ticked off."""


@dataclass(frozen=True)
class Removed:
    """K/V that was removed to make room."""

    id: str
    title: str
    bytes: int

"""Conversations over saved sessions: what of a session still holds, and what is read again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat.conversation.answer import common_prefix, kept_answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.display import displayable
from hga_chat.documents import Document, DocumentTokens, Skipped, lay_out
from hga_chat.documents.types import STANDARD_INPUT
from hga_chat.errors import describe
from hga_chat.sessions.saved import SavedSession
from hga_chat.sessions.store import SessionStore
from hga_chat.sessions.types import Origin, SessionError, SessionInfo
from hga_chat.settings import Settings
from hga_engine.errors import EngineError, KVStoreError, SavedStateError

if TYPE_CHECKING:
    from hga_engine.engine import Engine
    from hga_engine.model.files import ModelFiles
    from hga_engine.opening import LoadedModel


@dataclass(frozen=True)
class Keeping:
    """Where the reading of some documents is kept."""

    store: SessionStore
    given: tuple[str, ...]
    """The paths as they were typed."""
    origin: Origin
    saved: SavedSession | None
    """A reading of the same paths that is there already, open."""


def origin_of(paths: Sequence[str], files: "ModelFiles", settings: Settings) -> Origin:
    """What a reading of these paths follows from."""
    return Origin(
        paths=tuple(p if p == STANDARD_INPUT else str(Path(p).resolve()) for p in paths),
        include=settings.include,
        exclude=settings.exclude,
        model=str(files.directory.resolve()) if files.directory else settings.model,
        context=settings.context,
        router=settings.router,
        budget_tokens=settings.budget,
        fit=settings.fit,
        redact=settings.redact,
    )


def settings_of(info: SessionInfo, settings: Settings) -> Settings:
    """The settings a session goes on with: its own where they decided what was read."""
    origin = info.origin
    return replace(
        settings,
        model=origin.model,
        context=origin.context,
        router=origin.router,
        budget=origin.budget_tokens,
    )


def find_reading(
    store: SessionStore,
    origin: Origin,
    documents: Sequence[Document],
    note: Callable[[str], None],
) -> str | None:
    """The session of this origin whose documents agree longest with these; the latest of equals.

    Args:
        store: all sessions.
        origin: of the reading.
        documents: as they are now.
        note: told of sessions that would do but are damaged.
    """
    if STANDARD_INPUT in origin.paths:
        return None
    best, most = None, -1
    for id_ in store.ids():
        try:
            if store.info(id_).origin != origin:
                continue
            saved = store.documents(id_)
            store.turns(id_)
        except SessionError as error:
            note(f"{error} 'hga-chat sessions rm {id_}' removes what is left of the session.")
            continue
        same = sum(saved.tokens[: _equal_documents(saved.loaded.documents, documents)])
        whole = saved.loaded.documents == tuple(documents)
        if same + whole > most:
            best, most = id_, same + whole
    return best


def _equal_documents(one: Sequence[Document], other: Sequence[Document]) -> int:
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def lay_out_saved(saved: SavedSession, files: "ModelFiles") -> DocumentTokens | None:
    """The documents of a saved session as tokens; None if it has none."""
    from hga_engine.tokenizer.load import load_tokenizer

    assert saved.documents is not None
    loaded = saved.documents.loaded
    return lay_out(loaded, load_tokenizer(files)) if loaded.documents else None


def open_session(
    model: "LoadedModel", settings: Settings, saved: SavedSession, layout: DocumentTokens | None
) -> Conversation:
    """Go on with a saved session.

    Args:
        model: the one that has read it.
        settings: those of the session.
        saved: the session; the conversation closes it.
        layout: its documents.

    Raises:
        SessionError: another model has read it.
        EngineError: the session does not fit the memory.
    """
    info, documents = saved.info, saved.documents
    assert documents is not None
    if info.fingerprint != model.fingerprint:
        paths = " ".join(info.given)
        raise SessionError(
            f"Session {info.id} was read by {_named(info)}; the model of that name is another now "
            f"({model.fingerprint[:12]}).\n'hga-chat ingest {paths}' reads the documents with it."
        )
    return _converse(model, settings, layout, documents.loaded.skipped, saved)


def open_documents(
    model: "LoadedModel",
    settings: Settings,
    layout: DocumentTokens | None,
    skipped: tuple[Skipped, ...],
    keeping: Keeping | None,
    *,
    with_turns: bool = True,
) -> Conversation:
    """A conversation about documents, which goes on from a saved reading of them if there is one.

    Args:
        model: loaded.
        settings: the person's.
        layout: the documents as they are now.
        skipped: what of them was not read.
        keeping: where the reading is kept; None: nowhere.
        with_turns: go on after the turns that were saved with the reading.

    Raises:
        EngineError: the session does not fit the memory.
    """
    if keeping is None:
        return _converse(model, settings, layout, skipped, None)
    notes: list[str] = []
    saved = keeping.saved
    try:
        if saved is not None and saved.info.fingerprint != model.fingerprint:
            notes.append(
                f"Session {saved.info.id} was read by {_named(saved.info)}, which is another model "
                "now; the documents are read anew."
            )
            saved.close()
            saved = None
        if saved is None:
            saved = _create(keeping, model)
        elif saved.turns and layout and not _is_unchanged(saved, layout):
            saved = _fork(keeping, model, saved, layout, notes)
    except OSError as error:
        saved = None
        notes.append(f"The reading cannot be kept: {describe(error)}.")
    conversation = _converse(model, settings, layout, skipped, saved, with_turns=with_turns)
    conversation.notes[:0] = notes
    return conversation


def _named(info: SessionInfo) -> str:
    return f"{info.model_name} ({info.fingerprint[:12]})"


def _is_unchanged(saved: SavedSession, layout: DocumentTokens) -> bool:
    assert saved.documents is not None
    return saved.documents.loaded.documents == tuple(span.document for span in layout.documents)


def _create(keeping: Keeping, model: "LoadedModel") -> SavedSession:
    title = title_of(keeping.origin.paths)
    return keeping.store.create(title, keeping.given, keeping.origin, model.name, model.fingerprint)


def title_of(paths: Sequence[str]) -> str:
    """A name for people: that of the first path, and how many others there are."""
    first = "standard input" if paths[0] == STANDARD_INPUT else Path(paths[0]).name or paths[0]
    first = " ".join(displayable(first).split())
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def _fork(
    keeping: Keeping,
    model: "LoadedModel",
    old: SavedSession,
    layout: DocumentTokens,
    notes: list[str],
) -> SavedSession:
    """A session of its own for the documents as they are now; the turns keep the old text."""
    assert old.documents is not None
    new = _create(keeping, model)
    before = lay_out(old.documents.loaded, model.tokenizer).token_ids
    same = len(model.tokenizer.opening(None)) + common_prefix(before, layout.token_ids)
    try:
        old.copy_state_to(new, same)
    except (OSError, EngineError) as error:
        notes.append(f"The K/V could not be copied: {describe(error)}")
    notes.append(
        f"The documents have changed. Session {old.info.id} keeps its turns about the old text; "
        f"{new.info.id} ({new.info.title}) goes on with the new."
    )
    old.close()
    return new


def _converse(
    model: "LoadedModel",
    settings: Settings,
    layout: DocumentTokens | None,
    skipped: tuple[Skipped, ...],
    saved: SavedSession | None,
    *,
    with_turns: bool = True,
) -> Conversation:
    notes: list[str] = []
    try:
        engine = _open_engine(model, settings, saved, notes)
    except BaseException:
        if saved is not None:
            saved.close()
        raise
    turns = [kept_answer(turn) for turn in saved.turns] if saved and with_turns else []
    conversation = Conversation(engine, layout, skipped, turns=turns, saved=saved)
    conversation.notes += notes
    if saved is not None and (engine.num_tokens or not saved.is_new):
        conversation.notes.append(_read_again(conversation))
    return conversation


def _open_engine(
    model: "LoadedModel", settings: Settings, saved: SavedSession | None, notes: list[str]
) -> "Engine":
    """An engine that holds what K/V was saved, as far as it is whole and of the same making."""
    from hga_engine.opening import open_engine

    config = settings.engine()
    if saved is None:
        return open_engine(model, config)
    kept = replace(config, cache=replace(config.cache, saved_dir=saved.kv_folder))
    for _ in range(2):
        try:
            return open_engine(model, kept)
        except SavedStateError as error:
            notes.append(str(error))
            saved.drop_state()
        except (KVStoreError, OSError) as error:
            notes.append(f"The K/V cannot be kept: {describe(error)}")
            break
    return open_engine(model, config)


def _read_again(conversation: Conversation) -> str:
    """What is read although it was read before."""
    held, unread = conversation.engine.num_tokens, conversation.unread
    if not unread:
        return "Resumed; nothing had to be read again."
    if held >= conversation.document_end:
        return f"Read again: the last {unread:,} tokens of the turns."
    if not held or conversation.layout is None:
        return f"The session's K/V is not there any more; {unread:,} tokens are read again."
    documents = conversation.document_end - conversation.document_start
    found = conversation.layout.locate(held - conversation.document_start, documents)
    return f"Read again: {unread:,} of {held + unread:,} tokens, from {found[0].path} on."

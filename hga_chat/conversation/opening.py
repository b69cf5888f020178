"""Open conversations on saved sessions, with as much of the saved K/V as still holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat import engine_access
from hga_chat.conversation.answer import common_prefix, restored_answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.conversation.titles import title_of
from hga_chat.documents import Document, DocumentTokens, Skipped, lay_out
from hga_chat.documents.types import STANDARD_INPUT
from hga_chat.errors import describe
from hga_chat.scope import named
from hga_chat.sessions.saved import SavedSession
from hga_chat.sessions.store import SessionStore
from hga_chat.sessions.types import Origin, SessionError, SessionInfo
from hga_chat.settings import Settings
from hga_engine.errors import EngineError, KVStoreError, SavedStateError

if TYPE_CHECKING:
    from hga_engine.model.files import ModelFiles
    from hga_engine.opening import LoadedModel
    from hga_engine.protocol import EngineProtocol


@dataclass(frozen=True)
class SaveTarget:
    """Where a conversation about documents is to be saved."""

    store: SessionStore
    given: tuple[str, ...]
    """The paths as the user typed them."""
    origin: Origin
    saved: SavedSession | None
    """The open session that was saved for the same origin, if there is one."""
    title: str = ""
    """Title of a new session; empty: that of its documents."""


def origin_of(paths: Sequence[str], files: "ModelFiles", settings: Settings) -> Origin:
    """Return the origin of a session about these paths; the settings name model and context."""
    assert settings.context is not None
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
        system=settings.system,
    )


def settings_of(info: SessionInfo, settings: Settings) -> Settings:
    """Return the user's settings, with the session's own where its K/V depends on them."""
    origin = info.origin
    return replace(
        settings,
        model=origin.model,
        context=origin.context,
        router=origin.router,
        budget=origin.budget_tokens,
        system=origin.system,
    )


def find_saved_session(
    store: SessionStore,
    origin: Origin,
    documents: Sequence[Document],
    note: Callable[[str], None],
) -> str | None:
    """Find the saved session of an origin that has the most in common with its documents now.

    Args:
        store: all sessions.
        origin: the origin to look for.
        documents: the documents as they are now.
        note: receives notes on damaged sessions of this origin.

    Returns:
        The id of the session that shares the longest prefix, the latest if several do; None
        without any, or for standard input.
    """
    if STANDARD_INPUT in origin.paths:
        return None
    best, longest = None, -1
    for id_ in store.ids():
        try:
            if store.info(id_).origin != origin:
                continue
            saved = store.documents(id_)
            store.turns(id_)
        except SessionError as error:
            note(f"{error} 'hga-chat sessions rm {id_}' removes what is left of the session.")
            continue
        shared = sum(saved.tokens[: _equal_documents(saved.loaded.documents, documents)])
        is_equal = saved.loaded.documents == tuple(documents)
        if shared + is_equal > longest:
            best, longest = id_, shared + is_equal
    return best


def _equal_documents(one: Sequence[Document], other: Sequence[Document]) -> int:
    """Return how many documents at the beginning are equal."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def lay_out_saved(saved: SavedSession, files: "ModelFiles") -> DocumentTokens | None:
    """Lay out the documents of a saved session as tokens; None if it has none."""
    assert saved.documents is not None
    loaded = saved.documents.loaded
    if not loaded.documents:
        return None
    return lay_out(loaded, engine_access.access.load_tokenizer(files))


def open_session(
    model: "LoadedModel", settings: Settings, saved: SavedSession, layout: DocumentTokens | None
) -> Conversation:
    """Open a conversation on a saved session.

    Args:
        model: the loaded model of the session.
        settings: the session's settings.
        saved: the session; the conversation closes it.
        layout: its documents.

    Raises:
        SessionError: the session was made with another model.
        EngineError: the session does not fit in memory.
    """
    info, documents = saved.info, saved.documents
    assert documents is not None
    if info.fingerprint != model.fingerprint:
        paths = " ".join(info.given)
        raise SessionError(
            f"Session {info.id} was made with {_model_of(info)}; that model has since changed "
            f"({model.fingerprint[:12]}).\n'hga-chat ingest {paths}' reads the documents with it."
        )
    return _open(model, settings, layout, documents.loaded.skipped, saved)


def open_documents(
    model: "LoadedModel",
    settings: Settings,
    layout: DocumentTokens | None,
    skipped: tuple[Skipped, ...],
    target: SaveTarget | None,
    *,
    resume_turns: bool = True,
) -> Conversation:
    """Open a conversation about documents, with saved K/V of them if there is any.

    Args:
        model: the loaded model.
        settings: the user's settings.
        layout: the documents as they are now.
        skipped: what was not loaded.
        target: where to save the session; None: nowhere.
        resume_turns: continue after the saved turns.

    Raises:
        EngineError: the session does not fit in memory.
    """
    if target is None:
        return _open(model, settings, layout, skipped, None)
    notes: list[str] = []
    saved = target.saved
    dropped = saved.dropped if saved and resume_turns else ()
    try:
        if saved is not None and saved.info.fingerprint != model.fingerprint:
            notes.append(
                f"Session {saved.info.id} was made with {_model_of(saved.info)}; that model has "
                "since changed, so the documents are read again."
            )
            saved.close()
            saved = None
        if saved is None:
            saved = _create(target, model, layout)
        elif saved.turns and layout and not _is_unchanged(saved, layout):
            saved = _fork(target, model, saved, layout, notes)
    except OSError as error:
        saved = None
        notes.append(f"The session cannot be saved: {describe(error)}.")
    conversation = _open(model, settings, layout, skipped, saved, resume_turns=resume_turns)
    conversation.notes[:0] = notes
    conversation.dropped = tuple(path for path in conversation.paths if path in dropped)
    return conversation


def _model_of(info: SessionInfo) -> str:
    return f"{info.model_name} ({info.fingerprint[:12]})"


def _is_unchanged(saved: SavedSession, layout: DocumentTokens) -> bool:
    assert saved.documents is not None
    return saved.documents.loaded.documents == tuple(span.document for span in layout.documents)


def _create(
    target: SaveTarget, model: "LoadedModel", layout: DocumentTokens | None
) -> SavedSession:
    spans = layout.documents if layout else ()
    title = target.title or title_of(target.origin.paths, [span.document for span in spans])
    return target.store.create(title, target.given, target.origin, model.name, model.fingerprint)


def _fork(
    target: SaveTarget,
    model: "LoadedModel",
    old: SavedSession,
    layout: DocumentTokens,
    notes: list[str],
) -> SavedSession:
    """Create a session for the documents as they are now; the old one keeps its text and turns."""
    assert old.documents is not None
    new = _create(target, model, layout)
    before = lay_out(old.documents.loaded, model.tokenizer).token_ids
    shared = len(model.tokenizer.opening(target.origin.system or None)) + common_prefix(
        before, layout.token_ids
    )
    try:
        old.copy_kv_to(new, shared)
    except (OSError, EngineError) as error:
        notes.append(f"The K/V could not be copied: {describe(error)}")
    notes.append(
        f"The documents have changed. Session {old.info.id} keeps the old text and its turns; "
        f"{new.info.id} ({new.info.title}) has the new text."
    )
    old.close()
    return new


def _open(
    model: "LoadedModel",
    settings: Settings,
    layout: DocumentTokens | None,
    skipped: tuple[Skipped, ...],
    saved: SavedSession | None,
    *,
    resume_turns: bool = True,
) -> Conversation:
    notes = [*model.weights.notes]
    try:
        engine = _open_engine(model, settings, saved, notes)
    except BaseException:
        if saved is not None:
            saved.close()
        raise
    notes += _context_notes(engine)
    turns = [restored_answer(turn) for turn in saved.turns] if saved and resume_turns else []
    dropped = saved.dropped if saved and resume_turns else ()
    conversation = Conversation(engine, layout, skipped, turns, saved, dropped, settings.system)
    conversation.notes += notes
    if saved is not None and (engine.num_tokens or not saved.is_new):
        conversation.notes.append(_resume_note(conversation))
    if conversation.dropped:
        conversation.notes.append(
            f"Ticked off: {named(conversation.dropped)}. /files lists all, /add FILE ticks one on."
        )
    return conversation


def _context_notes(engine: "EngineProtocol") -> list[str]:
    """Say that a context is beyond the model's own, and by what means."""
    model, context = engine.model_config, engine.config.cache.context
    if context <= model.max_positions:
        return []
    return [
        f"This model's native context is {model.max_positions:,} tokens; {model.rope_scaling} "
        f"extends it to {context:,}."
    ]


def _open_engine(
    model: "LoadedModel", settings: Settings, saved: SavedSession | None, notes: list[str]
) -> "EngineProtocol":
    """Open an engine with the saved K/V; without it if it is damaged or does not match."""
    access = engine_access.access
    config = settings.engine()
    if saved is None:
        return access.open_engine(model, config)
    with_saved_kv = replace(config, cache=replace(config.cache, saved_dir=saved.kv_folder))
    for _ in range(2):  # once more after damaged K/V has been removed
        try:
            return access.open_engine(model, with_saved_kv)
        except SavedStateError as error:
            # Without advice: the documents are prefilled again right away.
            notes.append(str(error))
            saved.drop_kv()
        except (KVStoreError, OSError) as error:
            notes.append(f"The K/V cannot be saved: {describe(error)}")
            break
    return access.open_engine(model, config)


def _resume_note(conversation: Conversation) -> str:
    """Say how much of the session has to be prefilled again."""
    held, pending = conversation.engine.num_tokens, conversation.pending_tokens
    if not pending:
        return "Resumed; nothing needs reading again."
    if held >= conversation.document_end:
        return f"Resumed; the last {pending:,} tokens of the turns are read again."
    if not held or conversation.layout is None:
        return f"The session's K/V is gone; {pending:,} tokens are read again."
    documents = conversation.document_end - conversation.document_start
    found = conversation.layout.locate(held - conversation.document_start, documents)
    total = held + pending
    return f"{held:,} of {total:,} tokens are already read; reading resumes in {found[0].path}."

"""Changes of an open session: what they cost, and opening it again with them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat import engine_access, models
from hga_chat.cli.prepare import (
    Start,
    find_or_pull,
    given_places,
    prepare,
    start_on_documents,
    start_on_session,
    start_on_target,
)
from hga_chat.conversation.opening import SaveTarget, find_saved_session, origin_of
from hga_chat.documents import DocumentError
from hga_chat.errors import OverBudgetError, describe
from hga_chat.output import Output
from hga_chat.screen.changes import Change, Offer
from hga_chat.screen.drawing.figures import count, duration
from hga_chat.sessions.store import SessionStore
from hga_chat.settings import LEAST_CONTEXT, Settings
from hga_engine.errors import EngineError, HostMemoryError

if TYPE_CHECKING:
    from hga_chat.cli.prepare import Progress
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.sessions.saved import SavedSession
    from hga_engine.model.files import ModelFiles
    from hga_engine.protocol import EngineProtocol


def consider(conversation: "Conversation", change: Change, start: Start) -> Offer:
    """Say what a change of a conversation costs, or why it cannot be made.

    Raises:
        EngineError: why it cannot be made.
    """
    if start.again is None and not _is_kept(conversation):
        return Offer("This chat is not saved, so it cannot be opened again with that.", None)
    if change.what == "documents":
        return _consider_documents(conversation, change)
    if change.what == "context":
        return _consider_context(conversation, change)
    if change.what == "system":
        return _consider_system(conversation, change)
    return _consider_model(conversation, change, start.settings)


def _consider_documents(conversation: "Conversation", change: Change) -> Offer:
    from hga_chat.conversation.room import prefill_seconds
    from hga_chat.sessions.changes import changes_of

    saved, layout = conversation.saved, conversation.layout
    if saved is None or saved.is_new or layout is None or not conversation.given:
        return Offer("Only the files of a saved session can be loaded again.", None)
    changes = changes_of(saved, conversation.given)
    if not changes:
        return Offer("No file has changed since the documents were read.", None)
    old = {*changes.changed, *changes.gone}
    starts = [span.start for span in layout.documents if span.document.path in old]
    tokens = len(layout) - min(starts, default=len(layout))
    cost = "What comes before the first change need not be read again."
    if tokens:
        seconds = prefill_seconds(conversation, tokens)
        time = f", about {duration(seconds)}" if seconds is not None else ""
        cost = f"From the first of them on, {tokens:,} tokens are read again{time}."
    where = ""
    if conversation.turns:
        where = " The answers so far stay in this session; the new text gets one of its own."
    return Offer(f"{changes.as_text()}. {cost}{where} Load them?", change, is_asked=True)


def _start_on_files(saved: "SavedSession", settings: Settings, output: Output) -> Start:
    """Start on the files of a session as they are now."""
    assert saved.documents is not None
    info, origin = saved.info, saved.info.origin
    settings = replace(
        settings,
        include=origin.include,
        exclude=origin.exclude,
        fit=origin.fit,
        redact=origin.redact,
    )
    # Documents are named by the paths as they were typed, if these still lead there.
    is_same = tuple(str(Path(path).resolve()) for path in info.given) == origin.paths
    paths = info.given if is_same else origin.paths
    prepared = prepare(paths, settings, output)
    prepared.check_budget()
    if prepared.loaded.documents != saved.documents.loaded.documents:
        return start_on_documents(prepared, paths, output)
    saved.confirm_documents()
    note = "The files were written, but their text has not changed."
    return start_on_session(info.id, settings, output).with_note(note)


def _consider_context(conversation: "Conversation", change: Change) -> Offer:
    from hga_chat.conversation.room import needs_new_prefill, prefill_seconds, require_fit

    engine, digits = conversation.engine, change.value.replace(",", "").replace("_", "")
    if not digits.isdecimal():
        return Offer("Name a number of tokens, such as /context 65536.", None)
    context, held, own = int(digits), engine.num_tokens, engine.config.cache.context
    if context == own:
        return Offer(f"The session holds {own:,} tokens already.", None)
    if context < max(held + 1, LEAST_CONTEXT):
        least = f"{max(held + 1, LEAST_CONTEXT):,}"
        return Offer(
            f"The session has {held:,} tokens; the context must be at least {least}.", None
        )
    require_fit(engine, context)
    change = replace(change, value=digits)
    is_new = needs_new_prefill(engine, context)
    if not is_new and _is_kept(conversation):
        return Offer("", change)
    native = engine.model_config.max_positions
    why = "This chat is not saved"
    if is_new:
        why = (
            f"This model's native context is {native:,} tokens. Beyond it, RoPE is scaled for the "
            "length of the session"
        )
    cost = _cost(held, prefill_seconds(conversation, held))
    return Offer(f"{why}, so {cost}.{_lost(conversation)} Go on?", change, is_asked=True)


def _consider_system(conversation: "Conversation", change: Change) -> Offer:
    from hga_chat.conversation.room import prefill_seconds

    opening = conversation.engine.tokenizer.opening(change.value)  # refuses what has no place
    tokens = conversation.document_end - conversation.document_start + len(opening)
    cost = _cost(tokens, prefill_seconds(conversation, tokens))
    lost = _apart(conversation, "what follows gets")
    return Offer(
        f"Instructions stand before the documents, so {cost}.{lost} Go on?", change, is_asked=True
    )


def _apart(conversation: "Conversation", rest: str) -> str:
    """Say that the answers so far stay apart from what follows, or are lost."""
    if _is_kept(conversation):
        return f" The answers so far stay in this session; {rest} a new one."
    return _lost(conversation)


def _consider_model(conversation: "Conversation", change: Change, settings: Settings) -> Offer:
    from hga_chat.cli.outlook import unmet_need
    from hga_chat.conversation.prompts import QUESTION_ROOM
    from hga_chat.conversation.room import prefill_seconds
    from hga_engine.timing import layer_weights

    access, name = engine_access.access, change.value
    try:
        files = access.find_model(name)
    except models.ModelMissingError as error:
        return Offer(unmet_need(name, settings) or str(error), None)
    if name == settings.model:
        return Offer(f"{name} is the model in use.", None)
    own = replace(settings, context=None).for_model(name, access.native_context(files))
    assert own.context is not None
    _require_memory(conversation.engine, files, own)
    tokens = conversation.document_end
    room = own.context - QUESTION_ROOM - own.max_new_tokens
    if tokens > room:
        return Offer(f"The documents take {tokens:,} tokens; {name} has room for {room:,}.", None)
    seconds = prefill_seconds(conversation, tokens)
    if seconds is not None:
        old, new = conversation.engine.model_config, access.model_config(files)
        seconds *= new.num_layers * layer_weights(new) / (old.num_layers * layer_weights(old))
    cost = _cost(tokens, seconds)
    lost = _apart(conversation, "the other model gets")
    return Offer(
        f"Another model cannot use this K/V, so {cost}.{lost} Go on?", change, is_asked=True
    )


def _require_memory(engine: "EngineProtocol", files: "ModelFiles", settings: Settings) -> None:
    """Check that a model fits in place of the one that is open.

    Raises:
        EngineError: it does not.
    """
    from hga_engine.memory import probes
    from hga_engine.outlook import outlook

    held = engine.memory()
    if held.device_total_bytes:
        return  # what is free there is known only once the open model has gone
    try:
        outlook(files, settings.engine(), settings.device)
    except HostMemoryError as error:
        freed = held.weights_bytes + held.index_bytes + held.kv_host_bytes
        if error.ledger.total_host > probes.available_memory_bytes() + freed:
            raise


def _cost(tokens: int, seconds: float | None) -> str:
    time = f", about {duration(seconds)}" if seconds is not None else ""
    return f"all {tokens:,} tokens are read again{time}"


def _lost(conversation: "Conversation") -> str:
    """Warn of turns that nothing keeps."""
    turns = len(conversation.turns)
    is_lost = turns and not _is_kept(conversation)
    return f" {count(turns, 'turn')} will be forgotten." if is_lost else ""


def _is_kept(conversation: "Conversation") -> bool:
    """Return whether documents and turns are on disk."""
    saved = conversation.saved
    return saved is not None and saved.is_written and not saved.is_new


def start_again(
    change: Change, conversation: "Conversation", start: Start, output: Output
) -> Start:
    """Start on a conversation that has been closed, with a change.

    If that fails, it is opened as it was, with a note that says why.
    """
    from hga_chat.conversation.room import needs_new_prefill

    saved = conversation.saved if _is_kept(conversation) else None
    context = int(change.value) if change.what == "context" else None

    def set_context(context: int) -> None:
        assert saved is not None
        keep_kv = not needs_new_prefill(conversation.engine, context)
        store = SessionStore(start.settings.disk_limit)
        opened = store.open(saved.info.id)
        try:
            opened.set_context(context, keep_kv=keep_kv)
        finally:
            opened.close()

    def as_before(error: Exception) -> Start:
        if saved is not None:
            before = start_on_session(saved.info.id, start.settings, output)
        else:
            assert start.again is not None
            before = start.again(start.settings)
        return before.with_note(describe(error))

    try:
        if saved is None:
            assert start.again is not None
            return start.again(_changed(change, start.settings))
        if change.what == "documents":
            changed = _start_on_files(saved, start.settings, output)
        elif context is None:
            changed = _start_on_copy(saved, _changed(change, start.settings), output)
        else:
            set_context(context)
            settings = replace(start.settings, context=context)
            changed = start_on_session(saved.info.id, settings, output)
    except (DocumentError, EngineError, OSError, OverBudgetError) as error:
        return as_before(error)

    def open_(progress: "Progress") -> "Conversation":
        try:
            return changed.open(progress)
        except EngineError as error:
            if context is not None:
                assert start.settings.context is not None
                set_context(start.settings.context)
            return as_before(error).open(progress)

    return replace(changed, open=open_)


def _changed(change: Change, settings: Settings) -> Settings:
    if change.what == "context":
        return replace(settings, context=int(change.value))
    if change.what == "system":
        return replace(settings, system=change.value)
    return replace(settings, model=change.value, context=None)


def _start_on_copy(saved: "SavedSession", settings: Settings, output: Output) -> Start:
    """Start on the documents of a session, in one of their own for other settings."""
    documents = saved.documents
    assert documents is not None
    info = saved.info
    files, settings = find_or_pull(settings, output)
    store = SessionStore(settings.disk_limit)
    # Not ``origin_of``: the paths, and how they were loaded, are those of the session.
    new = origin_of((), files, settings)
    origin = replace(info.origin, model=new.model, context=new.context, system=new.system)
    found = find_saved_session(store, origin, documents.loaded.documents, output.note)
    opened = store.open(found) if found else None
    target = SaveTarget(store, info.given, origin, opened, info.title)
    return start_on_target(files, settings, documents.loaded, target, given_places(info))

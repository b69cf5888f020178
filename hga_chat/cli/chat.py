"""``ingest`` and ``chat``: the terminal application."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hga_chat.cli import completion
from hga_chat.cli.options import Json, Paths, with_settings
from hga_chat.cli.progress import INTERRUPTED
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.cli.prepare import Start
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.output import Output
    from hga_chat.screen.run import Ended

Watch = Annotated[
    bool,
    typer.Option(
        "--watch", help="While the chat is open, say when files change; /reload loads them."
    ),
]


@with_settings()
def ingest(
    paths: Paths,
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List documents with their token counts, then stop.")
    ] = False,
    no_chat: Annotated[
        bool,
        typer.Option("--no-chat", help="Read and save the documents, then print the session's id."),
    ] = False,
    as_json: Json = False,
    watch: Watch = False,
) -> None:
    """Read documents into a saved session and open the chat."""
    from hga_chat.errors import UsageError

    if dry_run:
        _list_documents(paths, settings, as_json=as_json)
        return
    if as_json and not no_chat:
        raise UsageError(
            "--json needs --dry-run or --no-chat; for an answer as JSON, use 'hga-chat ask --json'."
        )
    if no_chat and settings.no_save:
        raise UsageError(
            "--no-chat only saves a session and --no-save prevents that: use one of them."
        )
    if not no_chat:
        _require_terminal()
    from hga_chat.cli.prepare import note_skipped, prepare, start_on_documents
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    prepared = prepare(paths, settings, output)
    prepared.check_budget()
    note_skipped(prepared, output)
    start = start_on_documents(prepared, paths, output)
    if no_chat:
        _save_only(start, output, as_json=as_json)
    else:
        _open_screen(start, output, watch=watch)


@with_settings()
def chat(
    *,
    settings: Settings,
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="SESSION",
            help="Title of a saved session, its file, a part of these, or its id.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    watch: Watch = False,
) -> None:
    """Open a saved session, or choose one from a list."""
    _require_terminal()
    from hga_chat.cli.prepare import prepare, start_on_documents, start_on_session
    from hga_chat.output import Output
    from hga_chat.sessions.types import SessionMissingError

    output = Output(quiet=settings.quiet)
    if session is None:
        session = _choose_session(settings)
    if session is None:
        return
    if not session:
        _open_screen(start_on_documents(prepare([], settings, output), [], output), output)
        return
    try:
        start = start_on_session(session, settings, output)
    except SessionMissingError as error:
        if not Path(session).exists():
            raise
        raise SessionMissingError(
            f"{error}\n{session} is a path; to read it, run: hga-chat ingest {quote(session)}"
        ) from error
    _open_screen(start, output, watch=watch)


def _choose_session(settings: Settings) -> str | None:
    """Return the chosen session's id; empty for a chat without documents, None to quit."""
    from hga_chat.screen.picker import NEW, SessionPicker
    from hga_chat.sessions.store import SessionStore

    store = SessionStore(settings.disk_limit)
    if not store.ids():
        return NEW
    return SessionPicker(store, settings.theme, plain=settings.ascii).run()


def _require_terminal() -> None:
    from hga_chat.errors import UsageError

    # Textual draws on sys.__stderr__.
    streams = (sys.stdin, sys.stdout, sys.__stderr__)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise UsageError(
            "The chat needs a terminal; its input, output or errors are redirected.\n"
            "'hga-chat ask PATH QUESTION' works without one."
        )


def _open_screen(start: "Start", output: "Output", *, watch: bool = False) -> None:
    """Show the screen until the user quits; a change of the session opens it again."""
    from hga_chat.cli.changes import start_again

    ended, conversation = _show_screen(start.watching() if watch else start)
    while ended.change is not None and conversation is not None:
        start = start_again(ended.change, conversation, start, output)
        ended, conversation = _show_screen(start.watching() if watch else start)
    for note in ended.kept:
        output.note(note)
    if ended.kept:
        raise typer.Exit(INTERRUPTED)
    saved = conversation.saved if conversation else None
    if saved is not None:
        output.note(
            f"Session {saved.info.id} ({saved.info.title}) is saved; "
            f"'hga-chat chat {saved.info.id}' resumes it."
        )


def _show_screen(start: "Start") -> "tuple[Ended, Conversation | None]":
    from hga_chat.cli.changes import consider
    from hga_chat.screen.run import run_screen

    opened: list[Conversation] = []

    def make_conversation(progress: Callable[[str, float], None]) -> "Conversation":
        opened.append(start.open(progress))
        return opened[0]

    settings = start.settings
    ended = run_screen(
        make_conversation,
        settings.sampling(),
        settings.theme,
        plain=settings.ascii or None,
        alerts=not settings.no_alert,
        first_message=settings.first_message,
        consider=lambda conversation, change: consider(conversation, change, start),
    )
    return ended, opened[0] if opened else None


def _save_only(start: "Start", output: "Output", *, as_json: bool) -> None:
    """Prefill and save the documents, and print the session's id."""
    from hga_chat.cli.listing import conversation_as_object
    from hga_chat.cli.progress import cancel_on_interrupt, prefill_documents
    from hga_chat.output import human_bytes
    from hga_chat.sessions.files import disk_bytes
    from hga_chat.sessions.types import SessionError

    started = time.perf_counter()
    conversation = start.open(output.progress)
    load_s = time.perf_counter() - started
    try:
        for note in conversation.notes:
            output.note(note)
        saved, pending = conversation.saved, conversation.pending_tokens
        if saved is None:
            raise SessionError(
                "Nothing was read, because the session cannot be saved. 'hga-chat ask' works "
                "without."
            )
        with cancel_on_interrupt() as cancel:
            prefill_s = prefill_documents(conversation, output, cancel)
            if not conversation.is_prefilled:
                for note in conversation.keep_part():
                    output.note(note)
                raise typer.Exit(INTERRUPTED)
        started = time.perf_counter()
        for note in conversation.save():
            output.note(note)
        save_s = time.perf_counter() - started
        on_disk = disk_bytes(saved.folder) + disk_bytes(saved.kv_folder)
        if as_json:
            seconds = {"load_s": load_s, "prefill_s": prefill_s, "save_s": save_s}
            output.json(
                {
                    "session": saved.info.id,
                    "title": saved.info.title,
                    **conversation_as_object(conversation),
                    "read_tokens": pending,
                    "turns": len(conversation.turns),
                    "timing": {name: round(value, 3) for name, value in seconds.items()},
                    "disk_bytes": on_disk,
                }
            )
        else:
            output.write(f"{saved.info.id}\n")
            output.note(
                f"{saved.info.title}: {pending:,} of {conversation.engine.num_tokens:,} tokens "
                f"read in {prefill_s:.1f} s, saved in {save_s:.1f} s; "
                f"{human_bytes(on_disk)} on disk."
            )
    finally:
        conversation.close()


def _list_documents(paths: Sequence[str], settings: Settings, *, as_json: bool) -> None:
    from hga_chat.cli.listing import as_object, as_text
    from hga_chat.cli.prepare import prepare
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    prepared = prepare(paths, settings, output)
    if as_json:
        output.json(as_object(prepared.survey, prepared.budget))
    else:
        output.write(as_text(prepared.survey, prepared.budget))
    prepared.check_budget()

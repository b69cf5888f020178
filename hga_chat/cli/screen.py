"""``ingest`` and ``chat``: the terminal application."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hga_chat.cli.options import Json, Paths, with_settings
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.conversation import Conversation


@with_settings()
def ingest(
    paths: Paths,
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be read, and its tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read documents and open the chat about them."""
    from hga_chat.cli.errors import UsageError

    if dry_run:
        _list_documents(paths, settings, as_json=as_json)
    elif as_json:
        raise UsageError("--json goes with --dry-run; for an answer as JSON use 'hga-chat ask'.")
    else:
        _open_screen(paths, settings)


@with_settings()
def chat(
    settings: Settings,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Documents to talk about.")
    ] = None,
) -> None:
    """Open the chat, with or without documents."""
    _open_screen(paths or [], settings)


def _open_screen(paths: Sequence[str], settings: Settings) -> None:
    from hga_chat.cli.errors import UsageError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "The chat needs a terminal for input and output.\n"
            "For one answer without it use 'hga-chat ask PATH QUESTION'."
        )
    from hga_chat.cli.prepare import note_skipped, open_conversation, prepare
    from hga_chat.output import Output
    from hga_chat.screen.app import run_screen

    output = Output(quiet=settings.quiet)
    prepared = prepare(paths, settings, output)
    prepared.check_budget()
    note_skipped(prepared, output)

    def make_conversation(progress: Callable[[str, float], None]) -> "Conversation":
        return open_conversation(prepared, settings, progress)

    run_screen(make_conversation, settings.sampling())


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

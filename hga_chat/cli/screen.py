"""``ingest`` and ``chat``: the terminal application."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hga_chat.cli.options import Json, Paths, with_settings
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.cli.prepare import Prepared
    from hga_chat.conversation import Conversation
    from hga_chat.output import Output


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
    from hga_chat.cli.prepare import prepare
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    prepared = prepare(paths, settings, output)
    if as_json:
        output.json(_listing(prepared))
    else:
        _write_listing(prepared, output)
    prepared.check_budget()


def _listing(prepared: "Prepared") -> dict[str, object]:
    """The object that ``ingest --dry-run --json`` prints."""
    documents = prepared.layout.documents if prepared.layout else ()
    skipped = prepared.loaded.skipped if prepared.loaded else ()
    return {
        "documents": [
            {
                "path": span.document.path,
                "format": span.document.format,
                "sections": len(span.document.sections),
                "tokens": span.tokens,
            }
            for span in documents
        ],
        "skipped": [{"path": entry.path, "reason": entry.reason} for entry in skipped],
        "tokens": sum(span.tokens for span in documents),
        "budget": prepared.budget,
    }


def _write_listing(prepared: "Prepared", output: "Output") -> None:
    from hga_chat.output import table

    documents = prepared.layout.documents if prepared.layout else ()
    skipped = prepared.loaded.skipped if prepared.loaded else ()
    rows = [
        (span.tokens, len(span.document.sections), span.document.format, span.document.path)
        for span in documents
    ]
    output.write(table(("tokens", "sections", "format", "path"), rows) + "\n")
    if skipped:
        rows_skipped = [(entry.reason, entry.path) for entry in skipped]
        output.write("\n" + table(("skipped because", "path"), rows_skipped) + "\n")
    total = sum(span.tokens for span in documents)
    output.write(f"\n{total:,} of {prepared.budget:,} tokens\n")

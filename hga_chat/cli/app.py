"""The command line: all commands, and the handling of their errors."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from hga_chat import __version__
from hga_chat.cli import ask, bench, config, doctor, models, sessions
from hga_chat.cli import chat as screen
from hga_chat.cli.progress import INTERRUPTED

# Typer depends on click or bundles it, by version; either way this is click's UsageError.
UsageError: Any = typer.BadParameter.__base__


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # Typer would exit silently
            raise typer.Abort from None


app = typer.Typer(
    name="hga-chat",
    cls=_Commands,
    help="Ask questions about repositories, books and PDFs, on your own machine.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ask")(ask.ask)
app.command("ingest")(screen.ingest)
app.command("chat")(screen.chat)
app.add_typer(sessions.app, name="sessions")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """Handle the options that come before the command."""
    context.obj["debug"] = debug
    if version:
        sys.stdout.write(f"hga-chat {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed to standard error."""
    given = {"debug": False}
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        _never_fail_to_encode(getattr(sys, name))
    try:
        code = app(list(arguments), prog_name="hga-chat", standalone_mode=False, obj=given)
        sys.stdout.flush()
    except UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit as error:  # raised by Typer when a pipe is closed
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # noqa: BLE001  # nothing else would report it
        return _failure(error, debug=given["debug"])
    return code if isinstance(code, int) else 0


def _never_fail_to_encode(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _usage(error: Any) -> int:
    command = error.ctx.command_path if error.ctx is not None else "hga-chat"
    sys.stderr.write(f"hga-chat: {error.format_message()}\nTry '{command} --help'.\n")
    return 2


def _closed_pipe() -> int:
    """Discard the rest of the output, which nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _failure(error: Exception, *, debug: bool) -> int:
    from hga_chat.errors import describe, exit_code
    from hga_chat.output import Output

    if debug:
        import traceback

        traceback.print_exception(error)
    Output().error(f"hga-chat: {describe(error)}")
    return exit_code(error)

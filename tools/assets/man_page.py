"""Write the manual page from the help of the commands.

python -m tools.assets.man_page man/hga-chat.1
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from hga_chat.cli.app import app
from hga_chat.settings import PREFIX, Settings

SETTINGS = [setting.name for setting in fields(Settings)]
EXIT_CODES = (
    ("0", "Done."),
    ("1", "Failure."),
    ("2", "The command line or a setting is wrong."),
    ("3", "The input cannot be read."),
    ("4", "The documents exceed the token budget."),
    ("5", "There is not enough memory."),
    ("130", "Interrupted."),
)
EXAMPLES = (
    ("hga-chat ingest ./repo", "Read a repository and open the chat."),
    ('hga-chat ask book.epub "Who tells the story?"', "Ask one question."),
    ('git log -p | hga-chat ask - "Which file changed most?"', "Ask about a pipe."),
    ("hga-chat chat", "Choose a saved session and continue it."),
)


def man_page() -> str:
    """Return the page in the man macros of roff."""
    return "\n".join(_page(typer.main.get_command(app))) + "\n"


def _page(command: Any) -> Iterator[str]:
    yield '.\\" Written by tools.assets.man_page from the help of the commands.'
    yield ".TH HGA\\-CHAT 1"
    yield from (".SH NAME", f"hga\\-chat \\- {_text(_first_lower(command.help))}")
    yield from (".SH SYNOPSIS", ".B hga\\-chat", _usage(command))
    yield from (".SH OPTIONS", *_parameters(command.params))
    yield from (".SH COMMANDS", *_commands(command))
    yield from (".SH SETTINGS", "Flags override variables, and variables override the file.")
    yield _text(f"{PREFIX}BUDGET=2048 stands for --budget 2048, and in the file")
    yield "budget = 2048 does."
    yield _text("'hga-chat config path' prints where the file is, 'hga-chat config edit' opens it.")
    yield from _settings(command)
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES:
        yield from (".TP", f".B {code}", _text(meaning))
    yield ".SH EXAMPLES"
    for line, meaning in EXAMPLES:
        yield from (".TP", f".B {_text(line)}", _text(meaning))


def _commands(group: Any, path: str = "hga-chat") -> Iterator[str]:
    """Write each command of a group; a group in it gives its own commands."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
            continue
        yield from (f".SS {_text(f'{path} {name}')}", _usage(command))
        yield from (".PP", _text(command.help))
        own = [parameter for parameter in command.params if parameter.name not in SETTINGS]
        yield from _parameters(own)
        shared = [parameter.opts[0] for parameter in command.params if parameter.name in SETTINGS]
        if shared:
            yield from (".PP", _text(f"Settings: {', '.join(shared)}."))


def _settings(group: Any) -> Iterator[str]:
    """Write each setting once, as the chat has them all."""
    known = {parameter.name: parameter for parameter in group.commands["ingest"].params}
    yield from _parameters(known[name] for name in SETTINGS)


def _usage(command: Any) -> str:
    words = ["[OPTIONS]"]
    for parameter in command.params:
        if not parameter.opts[0].startswith("-"):
            word = f"{parameter.metavar}..." if parameter.nargs == -1 else parameter.metavar
            words.append(word if parameter.required else f"[{word}]")
    return _text(" ".join([*words, *(["COMMAND"] if hasattr(command, "commands") else [])]))


def _parameters(parameters: Iterable[Any]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.opts[0].startswith("-"):
            value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            name = ", ".join(sorted(parameter.opts, key=len)) + value
        else:
            name = parameter.metavar
        yield from (".TP", f".B {_text(name)}", _text(parameter.help))


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


def _text(text: str) -> str:
    """Return text as one line of roff that is no request."""
    line = re.sub(r"\s+", " ", text).strip()
    line = line.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{line}" if line.startswith(".") else line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    path.parent.mkdir(exist_ok=True)
    path.write_text(man_page(), encoding="utf-8")

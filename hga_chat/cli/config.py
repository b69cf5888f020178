"""``config``: show the settings, edit their file, say where it is."""

from dataclasses import fields
from typing import Any

import typer

from hga_chat.cli.options import Json
from hga_chat.settings import SIZES, Settings, config_path, lasting_settings, load_settings

_UNITS = ((40, "T"), (30, "G"), (20, "M"), (10, "K"), (0, ""))

app = typer.Typer(help="Show or edit the settings file.", rich_markup_mode=None)


@app.command("show")
def show(as_json: Json = False) -> None:
    """Show all settings and where each is set."""
    from hga_chat.output import Output, table

    output = Output()
    settings, given = load_settings({}), lasting_settings()
    names = [setting.name for setting in fields(Settings)]
    if as_json:
        values = {
            name: {"value": getattr(settings, name), "set_by": given.get(name, (None, None))[1]}
            for name in names
        }
        output.json({"file": str(config_path()), "settings": values})
        return
    rows = [
        (name, _shown(name, getattr(settings, name)), given.get(name, (None, ""))[1])
        for name in names
    ]
    output.write(table(("setting", "value", "set by"), rows) + "\n")
    if not config_path().exists():
        output.note(f"There is no {config_path()} yet; 'hga-chat config edit' creates it.")


@app.command("path")
def path() -> None:
    """Print where the settings file is."""
    from hga_chat.output import Output

    Output().write(f"{config_path()}\n")


@app.command("edit")
def edit() -> None:
    """Open the settings file in $VISUAL or $EDITOR; at first it lists every setting."""
    import os

    from hga_chat.errors import UsageError
    from hga_chat.output import Output
    from hga_chat.screen import editor

    command = editor.editor(os.environ)
    if not command:
        raise UsageError(f"No editor found. Set EDITOR, or edit {config_path()} yourself.")
    file = config_path()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template(), encoding="utf-8")
    editor.edit_file(command, file)
    load_settings({})  # says what is wrong with it
    Output().note(f"Saved; the next command uses {file}.")


def template() -> str:
    """Return a settings file in which every setting is commented out."""
    import textwrap

    parts = ["# Settings of hga-chat. Variables (HGA_CHAT_MODEL=…) and flags override them."]
    for setting in fields(Settings):
        text = textwrap.wrap(setting.metadata["help"], 96)
        default = setting.default
        example = _toml(setting.name, default) if default is not None else ""
        parts.append("\n".join([*(f"# {line}" for line in text), f"# {setting.name} = {example}"]))
    return "\n\n".join(parts) + "\n"


def _shown(name: str, value: Any) -> str:
    """Return a value as it is typed in the file."""
    return "not set" if value is None else _toml(name, value)


def _toml(name: str, value: Any) -> str:
    """Return a value in TOML."""
    import json

    if name in SIZES:
        units = ((value >> shift, unit) for shift, unit in _UNITS if value % (1 << shift) == 0)
        value = "{}{}".format(*next(units))
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)

"""Turns settings into flags of commands."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from hga_chat.cli import completion
from hga_chat.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files and folders; - is standard input."),
]
OptionalPaths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Files and folders; - is standard input."),
]

ANSWERING = tuple(
    setting.name
    for setting in fields(Settings)
    if setting.name not in ("theme", "ascii", "no_alert", "first_message")
)
"""Settings of a command that answers without the chat screen."""


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a flag for each named setting, or for all if none is named.

    The command receives the settings as ``settings``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        chosen = [setting for setting in fields(Settings) if not names or setting.name in names]

        def run(**given: Any) -> None:
            flags = {setting.name: given.pop(setting.name) for setting in chosen}
            command(settings=load_settings(flags), **given)

        signature = inspect.signature(command)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.name != "settings"
        ]
        parameters = [*own, *(_flag(setting) for setting in chosen)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _flag(setting: "Field[Any]") -> inspect.Parameter:
    """Return the command parameter for a setting's flag; its value is None without the flag."""
    kind: Any = setting.metadata["flag"]
    name = setting.name.replace("_", "-")
    is_open = kind is bool and setting.default is None
    flag = f"--{name}/--no-{name}" if is_open else f"--{name}"
    text = setting.metadata["help"]
    default: Any = setting.default
    if default not in (None, ()) and not isinstance(default, bool):
        # Sizes are typed with a unit, and shown with one.
        shown = f"{default >> 30}G" if setting.name == "disk_limit" else default
        text += f" Default: {shown}."
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            (list[str] if kind is list else kind) | None,
            typer.Option(
                flag,
                *(["-q"] if setting.name == "quiet" else []),
                help=text,
                autocompletion=completion.models if setting.name == "model" else None,
            ),
        ],
    )

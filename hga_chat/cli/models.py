"""``models``: list, download and verify models."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hga_chat.cli.options import Json, with_settings
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.models import ListedModel

app = typer.Typer(help="List, download and verify models.", rich_markup_mode=None)
Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of a model in 'hga-chat models list'.")
]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List models and where they are stored."""
    from hga_chat.models import list_models
    from hga_chat.output import Output, human_bytes, table

    output = Output()
    models = list_models()
    if as_json:
        output.json([as_dict(model) for model in models])
        return
    rows = [(model.name, human_bytes(model.size_bytes), _where(model)) for model in models]
    output.write(table(("model", "size", "where"), rows) + "\n")


@app.command("pull")
@with_settings("quiet")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model in 'hga-chat models list', or owner/repo or owner/repo:QUANT of "
            "the Hugging Face Hub.",
        ),
    ],
    settings: Settings,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before fetching.")] = False,
    as_json: Json = False,
) -> None:
    """Download a model and verify it; continues where an earlier attempt ended."""
    from hga_chat.cli.fetching import asking
    from hga_chat.models import pull_model
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    confirm = (lambda _: True) if yes else asking(output)
    files = pull_model(name, output.note, output.progress, confirm)
    output.clear_progress()
    if as_json:
        output.json({"name": files.name, "path": str(files.path)})


@app.command("verify")
@with_settings("quiet")
def verify(name: Name, settings: Settings, as_json: Json = False) -> None:
    """Verify every file of a model by checksum."""
    from hga_chat.models import verify_model
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    files = verify_model(name, output.progress)
    if as_json:
        output.json(
            [
                {"path": str(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256}
                for file in files
            ]
        )
        return
    output.write("".join(f"{file.sha256}  {file.path}\n" for file in files))
    output.note(f"{name} is complete and undamaged.")


def _where(model: "ListedModel") -> str:
    where = str(model.directory or "not here")
    return where if model.needs is None else f"{where}; needs {model.needs}"


def as_dict(model: "ListedModel") -> dict[str, Any]:
    """Return a listed model as JSON values."""
    return {
        "name": model.name,
        "directory": str(model.directory) if model.directory else None,
        "size_bytes": model.size_bytes,
        "needs": model.needs,
    }

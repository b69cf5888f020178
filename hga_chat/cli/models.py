"""``models``: list, download and verify models."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hga_chat.cli import completion
from hga_chat.cli.options import Json, with_settings
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.cli.outlook import Fit
    from hga_chat.models import FoundModel, ListedModel

app = typer.Typer(help="List, download and verify models.", rich_markup_mode=None)
Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name from 'hga-chat models list'.",
        autocompletion=completion.models,
    ),
]


@app.command("list")
@with_settings("context", "budget", "router", "device", "device_limit", "host_budget")
def list_(settings: Settings, as_json: Json = False) -> None:
    """List models: those to download by name, and those other programs have on this machine."""
    from hga_chat.cli.outlook import fit_of, fit_of_listed, recommendation
    from hga_chat.models import found_models, list_models
    from hga_chat.output import Output, human_bytes, table

    output = Output()
    output.progress("Looking for models", 0)
    listed = [(model, fit_of_listed(model, settings)) for model in list_models()]
    found = [(model, fit_of(model.files, settings)) for model in found_models()]
    output.clear_progress()
    if as_json:
        objects = [
            as_dict(model) | {"source": "catalogue"} | fit.as_object() for model, fit in listed
        ]
        output.json([*objects, *(_found_as_dict(model, fit) for model, fit in found)])
        return
    rows = [
        (
            model.name,
            human_bytes(model.size_bytes),
            fit.context_text,
            fit.as_text(),
            model.directory or "not downloaded",
        )
        for model, fit in listed
    ]
    rows += [
        (
            model.files.name,
            human_bytes(model.size_bytes),
            fit.context_text,
            fit.as_text(),
            f"{model.source}: {model.files.path}",
        )
        for model, fit in found
    ]
    output.write(table(("model", "size", "context", "here", "where"), rows) + "\n")
    best = recommendation(settings)
    if best is not None:
        output.note(f"Suggested for this machine: {best}.")


@app.command("pull")
@with_settings("quiet")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name from 'hga-chat models list', or owner/repo or owner/repo:QUANT on the "
            "Hugging Face Hub.",
        ),
    ],
    settings: Settings,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Download and verify a model; resumes an interrupted download."""
    from hga_chat.cli.fetching import asking
    from hga_chat.cli.outlook import unmet_need
    from hga_chat.models import pull_model
    from hga_chat.output import Output

    output = Output(quiet=settings.quiet)
    need = unmet_need(name, settings)
    if need is not None:
        output.note(need)
    confirm = (lambda _: True) if yes else asking(output)
    files = pull_model(name, output.note, output.progress, confirm)
    output.clear_progress()
    if as_json:
        output.json({"name": files.name, "path": str(files.path)})


@app.command("verify")
@with_settings("quiet")
def verify(name: Name, settings: Settings, as_json: Json = False) -> None:
    """Check every file of a model against its checksum."""
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
    output.note(f"{name} is complete; all checksums match.")


def as_dict(model: "ListedModel") -> dict[str, Any]:
    """Return a listed model as JSON values."""
    from hga_chat.models import facts_of

    facts = facts_of(model.name)
    return {
        "name": model.name,
        "directory": str(model.directory) if model.directory else None,
        "size_bytes": model.size_bytes,
        "needs": model.needs,
        "licence": facts.licence if facts else None,
        "purpose": facts.purpose if facts else None,
    }


def _found_as_dict(model: "FoundModel", fit: "Fit") -> dict[str, Any]:
    directory = model.files.directory or model.files.path.parent
    return {
        "name": model.files.name,
        "directory": str(directory),
        "size_bytes": model.size_bytes,
        "needs": None,
        "licence": None,
        "purpose": None,
        "source": model.source,
        **fit.as_object(),
    }

"""``doctor``: report what this machine has and which models it can run."""

import platform
from typing import TYPE_CHECKING, Any

from hga_chat.cli.options import Json, with_settings
from hga_chat.settings import AUTO, Settings

if TYPE_CHECKING:
    from hga_chat.models import ListedModel

_PACKAGES = ("torch", "transformers", "textual")


@with_settings("model", "context", "budget", "router", "device", "device_limit", "host_budget")
def doctor(settings: Settings, as_json: Json = False) -> None:
    """Show what this machine has and which models it can run."""
    from hga_chat.output import Output

    output = Output()
    report = _examine(settings)
    if as_json:
        output.json(report)
    else:
        output.write(_text(report))


def _examine(settings: Settings) -> dict[str, Any]:
    """Return the object that ``doctor --json`` prints."""
    import os

    import torch

    from hga_chat.cli.outlook import recommendation
    from hga_chat.models import list_models
    from hga_engine.memory import probes
    from hga_engine.status import device_name, kernel_status

    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())],
        "memory_bytes": probes.total_memory_bytes(),
        "memory_available_bytes": probes.available_memory_bytes(),
        "kernels": kernel_status(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "models": [_model(model, settings) for model in list_models()],
        "recommended": recommendation(settings),
        "in_use": _in_use(settings),
    }


def _in_use(settings: Settings) -> str | None:
    """Say what the model in use is good for, or why that is not known."""
    from hga_chat import models
    from hga_chat.cli.outlook import about_model, unmet_need
    from hga_chat.engine_access import access
    from hga_engine.errors import EngineError
    from hga_engine.memory.ledger import parameter_count

    name = models.default_model() if settings.model == AUTO else settings.model
    facts = models.facts_of(name)
    try:
        count = (
            parameter_count(facts.geometry) if facts else access.parameters(models.find_model(name))
        )
    except EngineError as error:
        return str(error)
    return unmet_need(name, settings) or about_model(name, count, settings)


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _model(model: "ListedModel", settings: Settings) -> dict[str, Any]:
    """Return a model and whether a full session fits; ``problem`` says why it does not."""
    from hga_chat.cli.models import as_dict
    from hga_chat.cli.outlook import fit_of_listed
    from hga_chat.output import human_bytes

    fit = fit_of_listed(model, settings)
    found = as_dict(model) | fit.as_object()
    if model.directory is None:
        size = human_bytes(model.size_bytes)
        needs = f"needs {model.needs}; " if model.needs else ""
        fetch = f"not downloaded; 'hga-chat models pull {model.name}' gets it ({size})"
        runs, does = fit.outlook is not None, fit.as_text()
        found["problem"] = f"{fetch}; {needs}{does}" if runs else f"{needs}{does}; {fetch}"
    return found


def _text(report: dict[str, Any]) -> str:
    from hga_chat.output import human_bytes

    available = human_bytes(report["memory_available_bytes"])
    packages = [f"{name} {version or 'missing'}" for name, version in report["packages"].items()]
    lines = [
        f"device    {report['device']}",
        f"GPU       {', '.join(report['gpus']) or 'none'}",
        f"memory    {human_bytes(report['memory_bytes'])}, {available} available",
        *(f"kernels   {device}: {status}" for device, status in report["kernels"].items()),
        f"packages  Python {report['python']}, {', '.join(packages)}",
    ]
    for model in report["models"]:
        status = model["problem"]
        if status is None:
            status = f"runs; {model['context']:,} tokens take {human_bytes(model['needed_bytes'])}"
            if model["needed_device_bytes"]:
                status += f" of memory and {human_bytes(model['needed_device_bytes'])} of the GPU's"
            status += f", about {model['tokens_per_s']:,.0f} tokens/s"
        lines.append(f"model     {model['name']}: {status}")
    lines.append(f"in use    {report['in_use']}")
    best = report["recommended"]
    lines.append(f"suggested {best or 'none: too little memory for any of these'}")
    return "\n".join(lines) + "\n"

"""What this machine can do with models, here or not: memory, speed, and the one to recommend."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hga_chat import models
from hga_chat.display import displayable
from hga_chat.errors import describe
from hga_chat.output import human_bytes
from hga_chat.settings import Settings
from hga_engine.errors import EngineError, GpuMemoryError, HostMemoryError, WeightMemoryError

if TYPE_CHECKING:
    from hga_engine.model.files import ModelFiles
    from hga_engine.outlook import Outlook

_REASON_CHARS = 60
_USABLE_TOKENS_PER_S = 10
"""About twice as fast as people read."""
_RANKED = ("qwen3-30b-a3b", "qwen3-30b-a3b-q4", "qwen3-4b", models.DEFAULT_MODEL)
"""The models that are recommended, the best first; each with its answers in mind, not its speed."""
_NEEDS_GPU = frozenset({"qwen3-30b-a3b"})
_CLEARLY_LARGER = 1.5
"""How many times the parameters of another model one has that is called better."""


@dataclass(frozen=True)
class Fit:
    """A model on this machine, with a full session of it."""

    native_context: int | None
    context: int | None
    """Of the session."""
    outlook: "Outlook | None"
    """None if it cannot run."""
    problem: str | None = None
    """Why it cannot run, and what to do about it."""
    reason: str | None = None
    """Why it cannot run, in a few words."""

    @classmethod
    def failing(cls, native_context: int | None, context: int | None, error: Exception) -> "Fit":
        """Return a model that cannot run."""
        return cls(native_context, context, None, describe(error), _reason(error))

    @property
    def context_text(self) -> str:
        """The native context for people."""
        return "?" if self.native_context is None else f"{self.native_context:,}"

    def as_text(self) -> str:
        """Say whether it runs, in a few words."""
        if self.outlook is None:
            return f"does not run: {self.reason}"
        return f"runs, about {self.outlook.tokens_per_s:,.0f} tokens/s"

    def as_object(self) -> dict[str, Any]:
        """Return it as JSON values."""
        memory = self.outlook.memory if self.outlook else None
        return {
            "native_context": self.native_context,
            "runs": self.outlook is not None,
            "problem": self.problem,
            "context": self.context,
            "device": memory.device_type if memory else None,
            "needed_bytes": memory.host_bytes if memory else None,
            "needed_device_bytes": memory.device_bytes if memory else None,
            "tokens_per_s": round(self.outlook.tokens_per_s, 1) if self.outlook else None,
        }


def _reason(error: Exception) -> str:
    match error:
        case HostMemoryError():
            needed, free, what = error.ledger.total_host, error.available, "memory"
        case GpuMemoryError():
            needed, free, what = error.needed, error.limit, "GPU memory"
        case WeightMemoryError():
            what = "memory" if error.device_type == "cpu" else "GPU memory"
            needed, free = error.needed, error.free
        case _:
            text = re.sub(r"^/\S*: ", "", describe(error).splitlines()[0])  # without the path
            return text if len(text) <= _REASON_CHARS else f"{text[: _REASON_CHARS - 1]}…"
    return f"takes {human_bytes(needed)} of {what}, {human_bytes(free)} free"


def fit_of_listed(model: models.ListedModel, settings: Settings) -> Fit:
    """Predict a model of the catalogue: from its files or, without, from its geometry."""
    if model.directory is not None:
        try:
            return fit_of(models.find_model(model.name), settings)
        except EngineError as error:
            return Fit.failing(None, None, error)
    facts = models.facts_of(model.name)
    if facts is None:
        reason = "its geometry is not known"
        return Fit(None, None, None, reason, reason)
    from hga_engine.outlook import outlook_ahead

    native = facts.geometry.max_positions
    own = settings.for_model(model.name, native)
    try:
        found = outlook_ahead(
            facts.geometry,
            model.size_bytes,
            own.engine(),
            settings.device,
            is_packed=facts.is_packed,
        )
    except EngineError as error:
        return Fit.failing(native, own.context, error)
    return Fit(native, own.context, found)


def fit_of(files: "ModelFiles", settings: Settings) -> Fit:
    """Predict a model on this machine."""
    from hga_engine.model.load import read_model_config
    from hga_engine.outlook import outlook

    native, own = None, settings
    try:
        native = read_model_config(files).max_positions
        own = settings.for_model(files.name, native)
        return Fit(native, own.context, outlook(files, own.engine(), settings.device))
    except (EngineError, OSError) as error:
        return Fit.failing(native, own.context, error)


def recommend(settings: Settings) -> "tuple[models.ListedModel, Fit] | None":
    """Return the best model of the catalogue that fits here and answers at a usable speed."""
    listed = {model.name: model for model in models.list_models()}
    for name in _RANKED:
        fit = fit_of_listed(listed[name], settings)
        if fit.outlook is None:
            continue
        if name in _NEEDS_GPU and fit.outlook.memory.device_type == "cpu":
            continue
        if fit.outlook.tokens_per_s >= _USABLE_TOKENS_PER_S or name == models.DEFAULT_MODEL:
            return listed[name], fit
    small = listed[models.SMALL_DEFAULT_MODEL]
    fit = fit_of_listed(small, settings)
    return (small, fit) if fit.outlook else None


def recommendation(settings: Settings) -> str | None:
    """Describe the model to use here; None if none of the catalogue runs."""
    found = recommend(settings)
    return None if found is None else describe_model(*found)


def describe_model(model: models.ListedModel, fit: Fit) -> str:
    """Describe a model of the catalogue in a line."""
    facts = models.facts_of(model.name)
    parts = [facts.purpose if facts else "", human_bytes(model.size_bytes)]
    parts.append(facts.licence if facts else "")
    if fit.outlook is not None:
        parts.append(f"about {fit.outlook.tokens_per_s:,.0f} tokens/s here")
    return f"{model.name} ({', '.join(part for part in parts if part)})"


def about_model(name: str, parameters: int | None, settings: Settings) -> str | None:
    """Say what a model is good for, and which better one this machine can run, in a line.

    Args:
        name: What ``--model`` takes.
        parameters: How many it has; None if that is not known, and then nothing is said.
        settings: The user's settings.
    """
    if parameters is None:
        return None
    facts = models.facts_of(name)
    purpose = facts.purpose if facts else models.purpose_by_size(parameters)
    shown = displayable(Path(name).name if models.is_path(name) else name)
    about = models.TOY_NOTE if name == models.EMBEDDED_MODEL else f"{shown}: {purpose}."
    better = better_model(parameters, settings)
    return f"{about} {better}" if better else about


def better_model(parameters: int, settings: Settings) -> str | None:
    """Name a clearly larger model that this machine can run; None if there is none."""
    found = recommend(replace(settings, context=None))
    if found is None:
        return None
    model, fit = found
    from hga_engine.memory.ledger import parameter_count

    facts = models.facts_of(model.name)
    assert facts is not None
    if parameter_count(facts.geometry) < _CLEARLY_LARGER * parameters:
        return None
    assert fit.outlook is not None
    speed = f"about {fit.outlook.tokens_per_s:,.0f} tokens/s"
    return f"Better here: --model {model.name} ({facts.purpose}; {speed})."


def unmet_need(name: str, settings: Settings) -> str | None:
    """Say what a model of the catalogue needs that this machine lacks; None if nothing."""
    needy = [model for model in models.list_models() if model.name == name and model.needs]
    if not needy:
        return None
    (model,) = needy
    fit = fit_of_listed(model, settings)
    is_on_cpu = fit.outlook is None or fit.outlook.memory.device_type == "cpu"
    if name in _NEEDS_GPU and is_on_cpu:
        lack = "no GPU here has that" if _has_gpu() else "no usable GPU was found here"
    elif fit.outlook is None:
        lack = f"here it {fit.reason}"
    else:
        return None
    best = recommendation(settings)
    instead = f" This machine can run {best}." if best else ""
    return f"{name} needs {model.needs}; {lack}.{instead}"


def _has_gpu() -> bool:
    from hga_engine.opening import usable_gpu

    return usable_gpu() is not None

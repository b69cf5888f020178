"""Settings: flags over environment over configuration file over defaults, parsed once.

Every setting is one field of ``Settings``: ``max_new_tokens`` is the flag ``--max-new-tokens``, the
variable ``HGA_CHAT_MAX_NEW_TOKENS`` and the key ``max_new_tokens`` of the configuration file.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from hga_chat.paths import MODELS_DIR_VARIABLE, config_dir
from hga_engine.config import (
    CacheConfig,
    DeviceName,
    EngineConfig,
    RouterName,
    SamplingParams,
)

PREFIX = "HGA_CHAT_"
AUTO = "auto"
"""The model that is chosen by the free memory."""
DEFAULT_CONTEXT = 65_536
LEAST_CONTEXT = 1024
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class SettingsError(Exception):
    """A setting is unknown or its value is invalid; the text says where it was set."""


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``512M`` or ``1.5 GiB``; units are powers of 1024.

    Raises:
        ValueError: ``text`` is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError("a size such as 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("text")


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise ValueError("text")


def _router(value: object) -> str:
    if value in ("hga", "paper", "dense"):
        return str(value)
    raise ValueError("hga, paper or dense")


def _device(value: object) -> str:
    if value in ("auto", "cpu", "cuda"):
        return str(value)
    raise ValueError("auto, cpu or cuda")


def _theme(value: object) -> str:
    if value in ("auto", "night", "day", "sixteen"):
        return str(value)
    raise ValueError("auto, night, day or sixteen")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d[\d_]*\s*", value):
        return int(value)
    raise ValueError("a whole number")


def _number(value: object) -> float:
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise ValueError("a number")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("", "0", "false", "no", "off") and isinstance(value, str):
        return False
    raise ValueError("true or false")


def _globs(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError("a list of globs")


def _size(value: object) -> int:
    return parse_size(value if isinstance(value, str) else str(value))


def _about(parse: Callable[[object], object], flag: type, text: str) -> dict[str, object]:
    """Return a setting's metadata: its parser, the type of its flag and its help text."""
    return {"parse": parse, "flag": flag, "help": text}


@dataclass(frozen=True)
class Settings:
    """The user's settings. Each command takes the relevant ones as flags."""

    model: str = field(
        default=AUTO,
        metadata=_about(
            _text,
            str,
            "Model: a name from 'hga-chat models list', a .gguf file, a folder, or owner/repo or "
            "owner/repo:QUANT on the Hugging Face Hub; auto picks the default for the free memory.",
        ),
    )
    context: int | None = field(
        default=None,
        metadata=_about(
            _whole,
            int,
            f"Tokens a session can hold. Default: {DEFAULT_CONTEXT:,}, or the model's native "
            "context if that is less.",
        ),
    )
    budget: int = field(
        default=4096,
        metadata=_about(
            _whole,
            int,
            "Tokens that each generated token attends to at most, per KV head; on average it "
            "uses about a third. More is slower and closer to dense attention.",
        ),
    )
    router: RouterName = field(
        default="hga",
        metadata=_about(
            _router, str, "Attention method: hga, paper (the paper's router) or dense (everything)."
        ),
    )
    system: str = field(
        default="",
        metadata=_about(
            _plain,
            str,
            "Instructions for the model, which stand before the documents. Default: the model's.",
        ),
    )
    temperature: float = field(
        default=0.0,
        metadata=_about(
            _number, float, "Sampling temperature; 0 always takes the likeliest token."
        ),
    )
    top_p: float = field(
        default=1.0,
        metadata=_about(
            _number,
            float,
            "Nucleus sampling: keep the likeliest tokens that sum to this probability.",
        ),
    )
    top_k: int = field(
        default=0,
        metadata=_about(
            _whole, int, "Sample from this many of the likeliest tokens; 0 means no limit."
        ),
    )
    seed: int | None = field(
        default=None, metadata=_about(_whole, int, "Seed that makes sampling repeatable.")
    )
    max_new_tokens: int = field(
        default=512, metadata=_about(_whole, int, "Maximum answer length in tokens.")
    )
    think: bool = field(
        default=False,
        metadata=_about(
            _switch,
            bool,
            "Let a model that can think do so before it answers, in up to 2,048 more tokens. At "
            "temperature 0 it samples at 0.6.",
        ),
    )
    include: tuple[str, ...] = field(
        default=(),
        metadata=_about(_globs, list, "Load only files that match this glob. Repeatable."),
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata=_about(_globs, list, "Leave out files that match this glob. Repeatable."),
    )
    max_tokens: int | None = field(
        default=None,
        metadata=_about(
            _whole, int, "Maximum document tokens. Default: what the context has room for."
        ),
    )
    fit: bool = field(
        default=False,
        metadata=_about(
            _switch,
            bool,
            "Load what fits and leave room for questions. Readmes, manifests and entry points come "
            "first, then source code by how many files import it, other text, examples, tests and "
            "the rest; within each, smaller files first. Files left out are listed.",
        ),
    )
    redact: bool = field(
        default=False,
        metadata=_about(_switch, bool, "Replace passwords and keys in documents."),
    )
    device: DeviceName = field(
        default="auto",
        metadata=_about(
            _device,
            str,
            "Where to run: cpu, cuda, or auto (the GPU if the weights fit, else the CPU).",
        ),
    )
    device_limit: int | None = field(
        default=None,
        metadata=_about(_size, str, "Cap on GPU memory, such as 31G. Default: all of it."),
    )
    host_budget: int | None = field(
        default=None,
        metadata=_about(
            _size, str, "Host memory for K/V, such as 512M; the rest goes to disk. CPU only."
        ),
    )
    no_save: bool = field(
        default=False,
        metadata=_about(_switch, bool, "Don't save, and ignore saved sessions."),
    )
    disk_limit: int = field(
        default=20 << 30,
        metadata=_about(
            _size,
            str,
            "Disk space for saved sessions. Beyond it, the K/V of the sessions unused for longest "
            "is removed.",
        ),
    )
    theme: str = field(
        default="auto",
        metadata=_about(_theme, str, "Colours of the screen: auto, night, day or sixteen."),
    )
    ascii: bool = field(
        default=False, metadata=_about(_switch, bool, "Draw the screen with ASCII characters only.")
    )
    no_alert: bool = field(
        default=False,
        metadata=_about(
            _switch,
            bool,
            "No bell or desktop notification when reading or answering took over 20 seconds.",
        ),
    )
    first_message: bool | None = field(
        default=None,
        metadata=_about(
            _switch,
            bool,
            "After reading, show a two-sentence summary and three questions to ask. Default: only "
            "on a GPU.",
        ),
    )
    quiet: bool = field(
        default=False, metadata=_about(_switch, bool, "Print no progress, notes or sources.")
    )

    def __post_init__(self) -> None:
        if self.context is not None and self.context < LEAST_CONTEXT:
            raise SettingsError(f"context must be at least {LEAST_CONTEXT} tokens.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError("max_tokens must be at least 1.")
        try:
            self.engine()
            self.sampling()
        except ValueError as error:
            raise SettingsError(f"{error}.") from error

    def engine(self) -> EngineConfig:
        """Return the engine's configuration, with the default context if none is set."""
        cache = CacheConfig(
            context=self.context or DEFAULT_CONTEXT,
            host_budget_bytes=self.host_budget,
            device_limit_bytes=self.device_limit,
        )
        return EngineConfig(self.router, self.budget, cache)

    def for_model(self, name: str, native_context: int | None) -> "Settings":
        """Return the settings with a chosen model, and its context if none is set.

        Args:
            name: What ``model`` becomes.
            native_context: The positions that the model was made for; None if unknown.
        """
        context = self.context
        if context is None:
            context = max(min(native_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT), LEAST_CONTEXT)
        return replace(self, model=name, context=context)

    def sampling(self) -> SamplingParams:
        """Return the parameters for sampling answers."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
        )


SIZES = tuple(setting.name for setting in fields(Settings) if setting.metadata["parse"] is _size)
"""Settings that are sizes in bytes."""


def config_path() -> Path:
    """Return the path of the configuration file, which may not exist."""
    return config_dir() / "config.toml"


def load_settings(
    flags: Mapping[str, object],
    environment: Mapping[str, str] = os.environ,
    config_file: Path | None = None,
) -> Settings:
    """Return the settings from all sources.

    Args:
        flags: Values by field name; None and empty lists count as not given.
        environment: Variables; those that start with ``HGA_CHAT_`` are used.
        config_file: TOML file; None is the user's own.

    Raises:
        SettingsError: A key is unknown or a value is invalid.
    """
    given = lasting_settings(environment, config_file)
    values = {name: value for name, (value, _) in given.items()}
    for name, value in flags.items():
        if value is not None and value != []:
            values[name] = _parse(name, value, f"The flag --{name.replace('_', '-')}")
    return Settings(**values)  # type: ignore[arg-type]  # every value passed its field's parser


def lasting_settings(
    environment: Mapping[str, str] = os.environ, config_file: Path | None = None
) -> dict[str, tuple[object, str]]:
    """Return the settings of the configuration file and the environment, and where each is set.

    Args and raises: see ``load_settings``.
    """
    path = config_file or config_path()
    found = {name: (value, str(path)) for name, value in _read_config(path).items()}
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != MODELS_DIR_VARIABLE:
            name = variable.removeprefix(PREFIX).lower()
            value = _parse(name, text, f"The environment variable {variable}")
            found[name] = (value, variable)
    return found


def _read_config(path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    return {name: _parse(name, value, f"{name} in {path}") for name, value in table.items()}


def _parse(name: str, value: object, where: str) -> object:
    parsers = {setting.name: setting.metadata["parse"] for setting in fields(Settings)}
    if name not in parsers:
        raise SettingsError(f"{where} is not a setting. Settings: {', '.join(parsers)}.")
    try:
        return parsers[name](value)
    except ValueError as error:
        raise SettingsError(f"{where} must be {error}, not {value!r}.") from error

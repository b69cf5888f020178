"""Directories of the application: XDG on Linux, their equivalents on other systems."""

import os
from pathlib import Path

_APP = "hga-chat"
MODELS_DIR_VARIABLE = "HGA_CHAT_MODELS_DIR"
"""Environment variable with another directory for models."""


def config_dir() -> Path:
    """Return the directory of the configuration file."""
    from platformdirs import user_config_path

    return user_config_path(_APP, appauthor=False)


def sessions_dir() -> Path:
    """Return the directory of saved sessions."""
    from platformdirs import user_data_path

    return user_data_path(_APP, appauthor=False) / "sessions"


def kv_dir() -> Path:
    """Return the directory of saved sessions' K/V, a cache that can be computed again."""
    from platformdirs import user_cache_path

    return user_cache_path(_APP, appauthor=False) / "kv"


def models_dir() -> Path:
    """Return the directory of fetched models, a cache that can be fetched again."""
    from platformdirs import user_cache_path

    elsewhere = os.environ.get(MODELS_DIR_VARIABLE)
    if elsewhere:
        return Path(elsewhere).expanduser()
    return user_cache_path(_APP, appauthor=False) / "models"

"""Where things are kept: the XDG directories, or their like on other systems."""

import os
from pathlib import Path

_APP = "hga-chat"
MODELS_DIR_VARIABLE = "HGA_CHAT_MODELS_DIR"
"""Environment variable that puts models elsewhere."""


def config_dir() -> Path:
    """Settings."""
    from platformdirs import user_config_path

    return user_config_path(_APP, appauthor=False)


def sessions_dir() -> Path:
    """Saved sessions."""
    from platformdirs import user_data_path

    return user_data_path(_APP, appauthor=False) / "sessions"


def kv_dir() -> Path:
    """K/V of saved sessions, which can be computed again."""
    from platformdirs import user_cache_path

    return user_cache_path(_APP, appauthor=False) / "kv"


def models_dir() -> Path:
    """Fetched models, which can be fetched again."""
    from platformdirs import user_cache_path

    elsewhere = os.environ.get(MODELS_DIR_VARIABLE)
    if elsewhere:
        return Path(elsewhere).expanduser()
    return user_cache_path(_APP, appauthor=False) / "models"


def logs_dir() -> Path:
    """Logs."""
    from platformdirs import user_state_path

    return user_state_path(_APP, appauthor=False) / "logs"

"""Runs the command line in this process, with a scripted engine in place of a model."""

import os
from dataclasses import dataclass

import pytest

from hga_chat import engine_access
from hga_chat.__main__ import main
from hga_chat.models import on_disk
from hga_chat.paths import MODELS_DIR_VARIABLE, kv_dir, models_dir
from tests.support.scripted import ScriptedAccess, ScriptedEngine


@pytest.fixture(autouse=True)
def no_other_programs(monkeypatch, tmp_path):
    """Hides the models that other programs keep on this machine."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setattr(on_disk, "_lm_studio_folders", lambda: [tmp_path / "lm-studio"])


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line without other settings and without saved sessions."""
    models, kernels = models_dir(), kv_dir().with_name("kernels")
    for name in [name for name in os.environ if name.startswith("HGA_CHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(MODELS_DIR_VARIABLE, str(models))
    if "HGA_KERNELS_CACHE" not in os.environ:  # compile once for all tests
        monkeypatch.setenv("HGA_KERNELS_CACHE", str(kernels))
    for kind in ("config", "data", "cache"):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(tmp_path / f"xdg-{kind}"))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def use_engine(monkeypatch):
    """Puts a scripted engine in place of every model, and returns it."""

    def use(*answers, **options):
        engine = ScriptedEngine(answers, **options)
        monkeypatch.setattr(engine_access, "access", ScriptedAccess(engine))
        return engine

    return use

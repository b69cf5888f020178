"""The command line in this process, and with a scripted engine in place of a model."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from scripted import ScriptedEngine

from hga_chat.__main__ import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line with no settings but its flags."""
    for name in [name for name in os.environ if name.startswith("HGA_CHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def use_engine(monkeypatch):
    """Puts a scripted engine where commands load a model; returns it."""

    def use(*answers, **options):
        import hga_chat.models
        import hga_engine.engine
        import hga_engine.tokenizer

        engine = ScriptedEngine(answers, **options)

        def load_engine(files, config, progress=None):
            progress("Loading", 1.0)
            engine.config = config
            return engine

        files = SimpleNamespace(name="scripted")
        monkeypatch.setattr(hga_chat.models, "find_model", lambda name: files)
        monkeypatch.setattr(hga_engine.tokenizer, "load_tokenizer", lambda _: engine.tokenizer)
        monkeypatch.setattr(hga_engine.engine, "load_engine", load_engine)
        return engine

    return use

"""The command line in this process, and with a scripted engine in place of a model."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from hga_chat.__main__ import main
from hga_chat.paths import MODELS_DIR_VARIABLE, kv_dir, models_dir
from tests.support.scripted import ScriptedEngine, scripted_fork, scripted_info


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line with no settings but its flags, and nothing saved before."""
    models, kernels = models_dir(), kv_dir().with_name("kernels")
    for name in [name for name in os.environ if name.startswith("HGA_CHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(MODELS_DIR_VARIABLE, str(models))
    if "HGA_KERNELS_CACHE" not in os.environ:  # compiled once, not for every test
        monkeypatch.setenv("HGA_KERNELS_CACHE", str(kernels))
    for kind in ("config", "data", "cache"):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(tmp_path / f"xdg-{kind}"))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def use_engine(monkeypatch):
    """Puts a scripted engine where commands load a model; returns it."""

    def use(*answers, **options):
        import hga_chat.models
        import hga_engine.compiling
        import hga_engine.opening
        import hga_engine.saved_state
        import hga_engine.tokenizer.load

        engine = ScriptedEngine(answers, **options)

        def prepare_model(files, progress=None, device="auto"):
            if progress is not None:
                progress("Loading", 1.0)
            return SimpleNamespace(
                tokenizer=engine.tokenizer,
                name=engine.model_name,
                fingerprint=engine.fingerprint,
                device_type=engine.device_type,
            )

        files = SimpleNamespace(name="scripted", directory=None, cache_dir=None)
        monkeypatch.setattr(hga_chat.models, "find_model", lambda name: files)
        monkeypatch.setattr(hga_engine.tokenizer.load, "load_tokenizer", lambda _: engine.tokenizer)
        monkeypatch.setattr(hga_engine.opening, "prepare_model", prepare_model)
        monkeypatch.setattr(hga_engine.compiling, "compile_kernels", lambda *_: None)
        monkeypatch.setattr(hga_engine.opening, "open_engine", lambda _, c: engine.open(c))
        monkeypatch.setattr(hga_engine.saved_state, "read_info", scripted_info)
        monkeypatch.setattr(hga_engine.saved_state, "fork", scripted_fork)
        return engine

    return use

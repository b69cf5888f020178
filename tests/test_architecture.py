"""Rules of imports beyond the contracts in pyproject.toml, and what starting up imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels" / "hga_kernels"
PACKAGES = [ROOT / "hga_chat", ROOT / "hga_engine", KERNELS]


def foreign_imports(path: Path) -> Iterator[str]:
    """Yield the imports of a file, at any depth, that kernels may not have."""
    allowed = {"hga_kernels", "torch", "triton"} | sys.stdlib_module_names
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.partition(".")[0] not in allowed:
                yield f"{path.name}:{node.lineno} imports {name}"


def test_kernels_import_torch_triton_and_the_standard_library_alone() -> None:
    assert [found for path in KERNELS.rglob("*.py") for found in foreign_imports(path)] == []


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("import numpy", False),
        ("from hga_engine.config import ModelConfig", False),
        ("def f():\n    from textual.app import App", False),
        ("import triton.language as tl", True),
        ("import os, torch", True),
    ],
)
def test_foreign_imports_are_found(source: str, allowed: bool, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(source)
    assert (not [*foreign_imports(tmp_path / "file.py")]) == allowed


def test_every_folder_with_code_is_a_package_but_kernels() -> None:
    """A package named ``kernels`` would hide Hugging Face's, which transformers imports."""
    assert not list((ROOT / "kernels").glob("*.py"))
    folders = {path.parent for package in PACKAGES for path in package.rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``code``."""
    report = "; import sys; print('\\n' + ' '.join(sys.modules), end='')"
    run = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in run.stdout.rpartition("\n")[2].split()}


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_starting_up_does_not_import_what_is_slow(argument: str) -> None:
    code = f"from hga_chat.__main__ import main\ntry: main(['{argument}'])\nexcept SystemExit: pass"
    loaded = modules_after(code + "\nimport sys")
    assert "hga_chat" in loaded
    assert loaded & {"torch", "transformers", "textual", "triton", "numpy", "pypdf"} == set()


def test_listing_sessions_does_not_import_what_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loaded = modules_after("from hga_chat.__main__ import main; main(['sessions', 'list'])")
    assert loaded & {"torch", "transformers", "textual", "triton", "numpy", "pypdf"} == set()


def test_the_chat_shows_itself_before_torch_is_imported() -> None:
    code = (
        "import sys, hga_chat.screen.app, hga_chat.cli.prepare, hga_chat.conversation.opening\n"
        "import hga_engine.tokenizer.tokenizer"
    )
    loaded = modules_after(code)
    assert "textual" in loaded
    assert loaded & {"torch", "transformers", "triton"} == set()


def test_hugging_faces_kernels_package_is_found_beside_this_project(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("import this_is_theirs")
    (tmp_path / "this_is_theirs.py").touch()
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]; import kernels"
    assert "this_is_theirs" in modules_after(code)

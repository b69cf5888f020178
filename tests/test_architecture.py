"""Who may import whom, read from the source of every file, and what starting up imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "hga_chat": ROOT / "hga_chat",
    "hga_engine": ROOT / "hga_engine",
    "hga_kernels": ROOT / "kernels" / "hga_kernels",
}
FILES = [(name, path) for name, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(top-level package, line) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield (node.module or "").partition(".")[0], node.lineno


def is_allowed(package: str, name: str) -> bool:
    if package == "hga_kernels":
        return name in {"hga_kernels", "torch", "triton"} or name in sys.stdlib_module_names
    if package == "hga_engine":
        return name not in {"hga_chat", "textual", "rich", "typer", "pypdf"}
    return name != "hga_kernels"


@pytest.mark.parametrize(
    ("package", "path"), [pytest.param(*f, id=str(f[1].relative_to(ROOT))) for f in FILES]
)
def test_imports_go_one_way(package: str, path: Path) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for name, line in imported(path)
        if not is_allowed(package, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "source", "allowed"),
    [
        ("hga_kernels", "import numpy", False),
        ("hga_kernels", "from hga_engine.config import ModelConfig", False),
        ("hga_kernels", "import triton.language as tl", True),
        ("hga_engine", "def f():\n    from textual.app import App", False),
        ("hga_engine", "from hga_kernels import linear", True),
        ("hga_chat", "if True:\n    import hga_kernels.cpu", False),
        ("hga_chat", "from hga_engine.engine import Engine", True),
    ],
)
def test_the_rules_can_fail(package: str, source: str, allowed: bool, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(source)
    names = [name for name, _ in imported(tmp_path / "file.py")]
    assert all(is_allowed(package, name) for name in names) == allowed


def test_every_folder_with_code_is_a_package_but_kernels() -> None:
    """A package named ``kernels`` would hide Hugging Face's, which transformers imports."""
    assert not list((ROOT / "kernels").glob("*.py"))
    folders = {path.parent for _, path in FILES}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running ``code``."""
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

"""The output of ``ingest --dry-run``, and the effect of ``--fit`` and ``--redact``."""

import json
import random
import shlex
import string
from dataclasses import replace

import pytest

from hga_chat.documents import formats
from hga_chat.documents.types import LoadedFile

KEY = "ghp_" + "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=36))


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    sizes = {
        "README.md": 20,
        "src/a.py": 300,
        "src/deep/b.py": 100,
        "src/main.py": 10,
        "tests/test_a.py": 200,
    }
    for name, words in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("word\n" * words)
    return folder


def test_the_tree_has_tokens_for_files_and_folders(cli, use_engine, tree):
    use_engine()
    (tree / "image.png").write_bytes(b"\x89PNG\0")
    ran = cli("ingest", "--dry-run", tree)
    assert ran.code == 0
    rows, skipped, total = ran.out.split("\n\n")
    table = [line.split() for line in rows.splitlines()[1:]]
    names = [row[-1] for row in table]
    assert names == ["README.md", "src/", "main.py", "a.py", "deep/", "b.py", "tests/", "test_a.py"]
    tokens = {row[-1]: int(row[0]) for row in table}
    assert tokens["src/"] == tokens["main.py"] + tokens["a.py"] + tokens["deep/"]
    assert tokens["deep/"] == tokens["b.py"]
    # Words, and a line end where the longer file is cut, less "/deep" in the header.
    assert tokens["a.py"] - tokens["b.py"] == 200 + 1 - 2
    whole = tokens["README.md"] + tokens["src/"] + tokens["tests/"]
    assert total.startswith(f"{whole:,} of ")
    assert skipped.splitlines()[1].split() == ["binary", "image.png"]


NOTEBOOK = """{"cells": [{"cell_type": "code", "source": "print(t)", "outputs": [
{"output_type": "stream", "text": "cut emoji \\ud83d and 4711"},
{"output_type": "display_data", "data": {"image/png": "iVBO"}}]}]}"""


def test_what_is_left_out_is_said(cli, use_engine, tree):
    use_engine("Yes.")
    (tree / "plot.ipynb").write_text(NOTEBOOK)
    listed = cli("ingest", "--dry-run", tree)
    _, left_out, _ = listed.out.split("\n\n")
    assert left_out.splitlines()[0].split("  ")[0] == "path"
    assert left_out.splitlines()[1].split() == ["plot.ipynb", "images", "(1)"]
    report = json.loads(cli("ingest", "--dry-run", "--json", tree).out)
    listed = {document["path"]: document["left_out"] for document in report["documents"]}
    assert listed["plot.ipynb"] == ["images (1)"]
    assert listed["README.md"] == []
    asked = cli("ask", "--json", tree, "q")
    assert "Left out of plot.ipynb: images (1)\n" in asked.err
    listed = {d["path"]: d["left_out"] for d in json.loads(asked.out)["documents"]}
    assert listed["plot.ipynb"] == ["images (1)"]


def test_one_line_says_what_is_left_out_of_several(cli, use_engine, tree):
    use_engine("Yes.")
    (tree / "plot.ipynb").write_text(NOTEBOOK)
    (tree / "run.log").write_text("\x1b[1mend\x1b[0m\n")
    asked = cli("ask", tree, "q")
    line = "Left out of 2 documents: images, terminal codes; 'hga-chat ingest --dry-run' lists them"
    assert f"{line}\n" in asked.err


def test_one_bad_file_does_not_end_a_run(cli, use_engine, tree, monkeypatch):
    use_engine("Yes.", "Yes.")

    def fail(path: str, data: bytes) -> LoadedFile:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(formats, "TEXT", replace(formats.TEXT, load=fail))
    for arguments in (("ingest", "--dry-run", "--json", tree), ("ask", "--json", tree, "q")):
        ran = cli(*arguments)
        assert ran.code == 0
        report = json.loads(ran.out)
        assert [document["path"] for document in report["documents"]] == ["README.md"]
        reason = "cannot be loaded: ZeroDivisionError: division by zero"
        assert {"path": "src/a.py", "reason": reason} in report["skipped"]


def test_fit_in_dry_run_and_ask(cli, use_engine, tree):
    use_engine("Yes.")
    listed = cli("ingest", "--dry-run", "--json", "--fit", "--max-tokens", "500", tree)
    assert listed.code == 0
    report = json.loads(listed.out)
    paths = ["README.md", "src/main.py", "src/a.py", "src/deep/b.py"]
    assert [document["path"] for document in report["documents"]] == paths
    left_out = {"path": "tests/test_a.py", "reason": "left out by --fit: a test"}
    assert report["skipped"] == [left_out]
    assert report["tokens"] <= report["budget"] == 500
    asked = cli("ask", "--json", "--fit", "--max-tokens", "500", tree, "q")
    answered = json.loads(asked.out)
    assert [document["path"] for document in answered["documents"]] == paths
    assert answered["skipped"] == [left_out]
    assert answered["usage"]["document_tokens"] == report["tokens"]


def test_fit_that_cannot_help_is_over_the_budget(cli, use_engine, tree):
    use_engine()
    ran = cli("ingest", "--dry-run", "--fit", "--max-tokens", "20", tree)
    assert ran.code == 4
    assert "over the budget of 20" in ran.err
    assert "--fit chooses" not in ran.err
    assert "--fit leaves" not in ran.err


def test_over_the_budget_names_folders_and_what_makes_it_fit(cli, use_engine, tree):
    use_engine()
    ran = cli("ask", tree, "q", "--max-tokens", "500")
    assert ran.code == 4
    assert "folders: src/ (" in ran.err
    assert "--exclude 'tests/' makes it fit" in ran.err
    assert ran.err.count("\n") == 2
    assert cli("ingest", "--dry-run", tree, "--max-tokens", "500", "--exclude", "tests/").code == 0


@pytest.mark.parametrize("name", ["-x.txt", "it's.txt", "[a] (1).txt", "two\nlines.txt", "end  "])
def test_the_option_that_is_proposed_makes_it_fit(name, cli, use_engine, tree):
    use_engine()
    (tree / name).write_text("word\n" * 900)
    ran = cli("ingest", "--dry-run", tree, "--max-tokens", "1000")
    assert ran.code == 4
    proposed = ran.err.split("For example, ")[1].split(" makes it fit")[0]
    options = shlex.split(proposed)
    ran = cli("ingest", "--dry-run", "--json", tree, "--max-tokens", "1000", *options)
    assert ran.code == 0
    assert name not in [document["path"] for document in json.loads(ran.out)["documents"]]


def test_secrets_are_reported_and_never_shown(cli, use_engine, tree):
    engine = use_engine("Yes.", "Yes.")
    (tree / "src/main.py").write_text(f"pass\nTOKEN = '{KEY}'\n")
    listed = cli("ingest", "--dry-run", tree)
    assert "GitHub token     src/main.py:2" in listed.out
    assert listed.err == ("1 possible secret: src/main.py:2 (GitHub token); --redact replaces it\n")
    asked = cli("ask", tree, "q")
    assert "1 possible secret: src/main.py:2 (GitHub token); --redact replaces it\n" in asked.err
    for ran in (listed, asked):
        assert KEY not in ran.out + ran.err
    assert KEY in engine.tokenizer.decode(engine.session)


def test_redact_removes_secrets_from_documents(cli, use_engine, tree):
    engine = use_engine("Yes.")
    (tree / "src/main.py").write_text(f"pass\nTOKEN = '{KEY}'\n")
    ran = cli("ask", "--redact", tree, "q")
    assert "1 possible secret redacted: src/main.py:2 (GitHub token)" in ran.err
    read = engine.tokenizer.decode(engine.session)
    assert "TOKEN = '[redacted GitHub token]'" in read
    assert KEY not in read


def test_a_dry_run_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, hga_chat.cli.prepare, hga_chat.cli.listing, hga_chat.conversation.prompts\n"
        "import hga_chat.models\n"
        "import hga_engine.tokenizer.tokenizer, hga_engine.tokenizer.token_counts\n"
        "sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

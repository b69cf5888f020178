"""Inputs that cannot be loaded and models that cannot be downloaded: message and exit code."""

import json
import os
import socket

import pytest
from pypdf import PdfWriter

LINES = 2


@pytest.fixture
def engine(use_engine):
    return use_engine("Never said.")


def pdf(path, *, password=None):
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


def write(path, content):
    path.write_bytes(content)
    return path


def folder_without_text(path):
    path.mkdir()
    (path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp: tmp / "none.txt", "none.txt: no such file or folder"),
        (lambda _: "", "the path is empty; name a file or folder"),
        (lambda tmp: write(tmp / "empty.txt", b""), "empty.txt: empty"),
        (lambda tmp: folder_without_text(tmp / "pictures"), "pictures: nothing to load"),
        (lambda tmp: write(tmp / "data.bin", b"\x00\x01\x02" * 99), "data.bin: binary"),
        (lambda tmp: pdf(tmp / "locked.pdf", password="x"), "locked.pdf: encrypted"),
        (lambda tmp: write(tmp / "torn.pdf", b"%PDF-1.7\nnot more"), "torn.pdf: damaged"),
        (lambda tmp: pdf(tmp / "scan.pdf"), "scan.pdf: "),
    ],
)
def test_unreadable_input_is_exit_code_3(cli, engine, tmp_path, make, message):
    path = make(tmp_path)
    for command in (["ask", path, "q"], ["ingest", "--dry-run", path]):
        ran = cli(*command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith("hga-chat: ")
        assert message in ran.err
        assert ran.err.count("\n") <= LINES
    assert engine.session == []


@pytest.fixture
def large(tmp_path):
    root = tmp_path / "large"
    root.mkdir()
    for name, words in (("big.txt", 3_000), ("middle.txt", 300), ("small.txt", 30)):
        (root / name).write_text(" ".join(["word"] * words))
    return root


def test_over_the_budget_is_exit_code_4_and_says_what_to_leave_out(cli, engine, large):
    ran = cli("ask", large, "q", "--max-tokens", "500")
    assert (ran.code, ran.out) == (4, "")
    assert "over the budget of 500" in ran.err
    assert "big.txt (3,0" in ran.err
    assert "--exclude 'big.txt'" in ran.err
    assert engine.session == []


def test_excluding_what_it_suggests_is_enough(cli, use_engine, large):
    use_engine("Fits.")
    ran = cli("ask", large, "q", "--max-tokens", "500", "--exclude", "big.txt")
    assert (ran.code, ran.out) == (0, "Fits.\n")


def test_without_a_limit_the_context_is_the_limit(cli, engine, large):
    # 2048 minus 512 for the answer, 512 for the question and one opening token.
    ran = cli("ask", large, "q", "--context", "2048")
    assert ran.code == 4
    assert "over the budget of 1,023" in ran.err
    more = cli("ask", large, "q", "--context", "2048", "--max-tokens", "9000")
    assert "over the budget of 1,023" in more.err


def test_dry_run_lists_documents_with_their_tokens(cli, engine, large):
    ran = cli("ingest", "--dry-run", "--json", large)
    report = json.loads(ran.out)
    assert ran.code == 0
    assert set(report) == {"documents", "skipped", "tokens", "budget"}
    assert {document["path"] for document in report["documents"]} == {
        "big.txt",
        "middle.txt",
        "small.txt",
    }
    assert all(
        set(document) == {"path", "format", "sections", "tokens", "left_out"}
        for document in report["documents"]
    )
    assert report["tokens"] == sum(document["tokens"] for document in report["documents"])
    assert report["budget"] == 65_536 - 1 - 512 - 512


def test_dry_run_over_the_budget_lists_and_is_exit_code_4(cli, engine, large):
    (large / "data.bin").write_bytes(b"\x00" * 100)
    ran = cli("ingest", "--dry-run", large, "--max-tokens", "500")
    assert ran.code == 4
    assert "middle.txt" in ran.out
    assert "binary" in ran.out
    assert "of 500 tokens" in ran.out
    assert "--exclude 'big.txt'" in ran.err


def test_skipped_files_are_named_and_then_counted(cli, use_engine, large):
    use_engine("Yes.")
    for number in range(5):
        (large / f"data{number}.bin").write_bytes(b"\x00" * 100)
    ran = cli("ask", large, "q")
    assert ran.err.count("binary") == 3
    assert "Skipped 2 more" in ran.err


def test_damaged_model_is_exit_code_1(cli, tmp_path):
    notes = write(tmp_path / "notes.txt", b"Some text.\n")
    model = tmp_path / "model"
    model.mkdir()
    write(model / "config.json", b"{not json")
    write(model / "model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00torn")
    ran = cli("ask", notes, "q", "--model", model)
    assert (ran.code, ran.out) == (1, "")
    assert str(model) in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.count("\n") <= LINES


def test_no_network_is_exit_code_1_and_says_what_to_do(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", closed_port_url())
    monkeypatch.setenv("HF_ENDPOINT", closed_port_url())
    notes = write(tmp_path / "notes.txt", b"Some text.\n")
    ran = cli("ask", notes, "q")
    assert (ran.code, ran.out) == (1, "")
    assert "qwen2.5-coder" in ran.err
    assert "network" in ran.err
    assert "Traceback" not in ran.err


def closed_port_url():
    """Return a URL on which nothing listens: a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/simple"

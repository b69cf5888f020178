"""Documents and their files: every name that loading gives leads back to its file."""

from hga_chat.documents import load_documents
from hga_chat.documents.files import file_of, resolved


def test_every_document_leads_back_to_its_file(tmp_path, monkeypatch):
    for name in ("one/a.txt", "one/deep/b.txt", "two/a.txt", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.")
    monkeypatch.chdir(tmp_path)
    for paths in (["one"], ["one/"], ["one", "two"], ["./one", "c.txt"], ["c.txt"], ["."]):
        given = resolved(paths)
        loaded = load_documents(paths).documents
        assert loaded
        for document in loaded:
            file = file_of(document.path, given)
            assert file is not None
            assert document.sections[0].text == file.read_text()


def test_standard_input_has_no_file():
    assert resolved(["-"]) == {}
    assert file_of("-", {}) is None

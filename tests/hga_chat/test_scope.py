import pytest

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.scope import Scope, groups_left_out, matching, mentioned, unknown_note
from tests.support.scripted import ScriptedTokenizer

PATHS = ("src/app.py", "src/util/app.py", "src/util/text.py", "docs/my notes.md", "README.md")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("src/app.py", ("src/app.py",)),
        ("app.py", ("src/app.py", "src/util/app.py")),
        ("util/app.py", ("src/util/app.py",)),
        ("src/util", ("src/util/app.py", "src/util/text.py")),
        ("util/", ("src/util/app.py", "src/util/text.py")),
        ("./README.md", ("README.md",)),
        ("EADME.md", ()),
        ("rc", ()),
        ("/", ()),
        ("", ()),
    ],
)
def test_a_name_is_a_path_the_end_of_one_or_a_folder(name, found):
    assert matching(name, PATHS) == found


@pytest.mark.parametrize(
    ("question", "found", "unknown"),
    [
        ("What does @src/app.py do?", ("src/app.py",), ()),
        ("Compare @README.md, and @text.py.", ("src/util/text.py", "README.md"), ()),
        ("What is in (not @x) @docs/my notes.md?", ("docs/my notes.md",), ("x",)),
        ("What does the @property of @nothing.py do, @nothing.py?", (), ("property", "nothing.py")),
        ("Mail me@README.md @ noon", (), ()),
        ("", (), ()),
    ],
)
def test_names_after_at_signs_are_found_in_a_question(question, found, unknown):
    assert mentioned(question, PATHS) == (found, unknown)


def test_an_unknown_name_is_said_with_the_nearest():
    assert unknown_note(["utl/text.py"], PATHS) == (
        "No document is called utl/text.py. Did you mean src/util/text.py?"
    )
    assert "README.md" in unknown_note(["raedme.md"], PATHS)
    assert unknown_note(["zzzz"], PATHS) == "No document is called zzzz."


def test_groups_of_other_documents_are_left_out_and_none_of_its_own():
    texts = ("one " * 30, "two " * 21, "three " * 50, "four " * 25)
    loaded = LoadedDocuments(
        tuple(
            Document(f"{n}.txt", "text", (Section(f"{n}.txt", "", text, 1, 1, None),))
            for n, text in enumerate(texts)
        ),
        (),
    )
    layout = lay_out(loaded, ScriptedTokenizer())
    spans = [range(span.start + 5, span.end + 5) for span in layout.documents]
    for scope, hidden in [
        (Scope(), ()),
        (Scope(limited_to=("2.txt",)), (0, 1, 3)),
        (Scope(without=("1.txt", "2.txt")), (1, 2)),
        (Scope(without=("1.txt", "3.txt")), (1, 3)),
    ]:
        for size in (2, 16):
            groups = groups_left_out(scope, layout, 5, size, 16)
            assert len(groups) == len(set(groups))
            tokens = {token for g in groups for token in range(g * size, g * size + size)}
            others = {t for n, span in enumerate(spans) if n not in hidden for t in span}
            wanted = {t for n in hidden for t in spans[n] if t >= 16}
            assert not tokens & others
            assert min(tokens, default=16) >= 16
            # Less than a group is missing at either end of what is hidden together.
            pieces = 1 if hidden == (1, 2) else len(hidden)
            assert len(wanted - tokens) <= 2 * (size - 1) * pieces

import random
from pathlib import PurePath

import pytest

from hga_chat.documents.fit import Fitting, room_for_turns
from hga_chat.documents.tree.kinds import Kind, kind_of
from hga_chat.documents.types import Document, Section

_FILES = [
    ("README.md", Kind.README, 10),
    ("main.py", Kind.ENTRY, 10),
    ("a.py", Kind.FILE, 30),
    ("b.py", Kind.FILE, 20),
    ("examples/e.py", Kind.EXAMPLE, 15),
    ("locale/de.po", Kind.TRANSLATION, 16),
    ("data.csv", Kind.DATA, 5),
    ("big.json", Kind.DATA, 40),
    ("tests/t.py", Kind.TEST, 12),
    ("tests/u.py", Kind.TEST, 12),
    ("CHANGES", Kind.CHANGES, 6),
]


def _left_out(budget: int, files=None) -> dict[str, str]:
    """Return the documents left out and the reasons, in loading order."""
    files = _FILES if files is None else files
    fitting = Fitting(budget)
    for number, (path, kind, tokens) in enumerate(files):
        fitting.add(number, Document(path, "text", ()), kind, tokens)
    chosen, reasons = fitting.choose()
    left = {files[number][0]: why for number, why in reasons.items()}
    assert [path for path, *_ in files if path not in left] == [d.path for d in chosen]
    return left


def test_everything_is_chosen_if_it_fits() -> None:
    assert _left_out(176) == {}


@pytest.mark.parametrize(
    ("budget", "left_out"),
    [
        (175, "big.json"),  # 136 and not 40 more
        (135, "big.json CHANGES"),  # 125 without data; 5 of it still fit
        (124, "big.json locale/de.po"),  # 109 and not 16 more; 11 of data still fit
        (100, "big.json CHANGES data.csv tests/u.py locale/de.po"),  # 85, then 12
        (60, "big.json CHANGES tests/t.py tests/u.py locale/de.po a.py"),  # 40, then 15, 5
        (
            20,
            "big.json CHANGES data.csv tests/t.py tests/u.py locale/de.po examples/e.py a.py b.py",
        ),
    ],
)
def test_the_order_of_choice(budget: int, left_out: str) -> None:
    assert set(_left_out(budget)) == set(left_out.split())


def test_reasons_for_leaving_out() -> None:
    assert _left_out(30) == {
        "a.py": "too large for what is left",
        "b.py": "too large for what is left",
        "examples/e.py": "an example",
        "locale/de.po": "a translation",
        "big.json": "longer than the whole token budget",
        "tests/t.py": "a test",
        "tests/u.py": "a test",
        "CHANGES": "a changelog",
    }


def test_what_comes_first_is_left_out_as_well_if_it_does_not_fit() -> None:
    files = [("README.md", Kind.README, 80), ("a.py", Kind.FILE, 10), ("main.py", Kind.ENTRY, 30)]
    assert _left_out(100, files) == {"README.md": "too large for what is left"}
    assert _left_out(50, files) == {"README.md": "longer than the whole token budget"}


def test_the_choice_depends_neither_on_the_order_nor_on_dropped_documents() -> None:
    choose = random.Random(5)
    sizes = choose.sample(range(1, 701), 700)  # all different, so order decides nothing
    files = [(str(size), choose.choice(list(Kind)), size) for size in sizes]
    files = [entry for entry in files if entry[1] > Kind.ENTRY or entry[2] < 40]
    assert sum(sizes) > 16 * 700  # far more than is kept
    expected = _left_out(700, files)
    assert 5 < len(files) - len(expected) < 60
    for _ in range(5):
        choose.shuffle(files)
        assert _left_out(700, files) == expected


def _source(path: str, text: str) -> Document:
    return Document(path, "text", (Section(path, "", text, None, None, None),))


def test_source_code_is_chosen_by_how_many_files_import_it() -> None:
    files = {
        "pkg/core.py": ("", 50),
        "pkg/types.py": ("from .core import Command\n", 40),
        "pkg/rare.py": ("from . import core, types\n", 5),
        "notes.md": ("", 5),
        "make.bat": ("", 1),
        "tests/test_core.py": ("from pkg import core\n", 5),
    }
    for budget, kept in (
        (50, {"pkg/core.py"}),
        (96, {"pkg/core.py", "pkg/types.py", "pkg/rare.py", "make.bat"}),
        (100, {"pkg/core.py", "pkg/types.py", "pkg/rare.py", "notes.md"}),
    ):
        fitting = Fitting(budget)
        for number, (path, (text, tokens)) in enumerate(files.items()):
            kind = kind_of(PurePath(path))
            fitting.add(number, _source(path, text), kind, tokens)
        chosen, left_out = fitting.choose()
        assert {document.path for document in chosen} == kept
        assert all(left_out.values())
    assert [list(files)[number] for number in left_out] == ["tests/test_core.py", "make.bat"]


@pytest.mark.parametrize(
    ("context", "room"), [(4096, 512), (32_768, 4096), (65_536, 8192), (262_144, 8192)]
)
def test_room_is_left_for_questions(context: int, room: int) -> None:
    assert room_for_turns(context) == room

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.plain.table import load_table


def test_of_a_long_table_the_first_rows_are_loaded() -> None:
    rows = "".join(f"{n},{n * n}\n" for n in range(1, 1001))
    loaded = load_table("a.csv", f"n,square\n{rows}".encode())
    (section,) = loaded.sections
    assert loaded.notes == ("900 of 1,000 rows left out",)
    lines = section.text.split("\n")
    assert lines[:2] == ["n,square", "1,1"]
    assert lines[-3:] == ["100,10000", "[900 of 1,000 rows left out]", ""]
    assert (section.label, section.start_line, section.end_line) == ("columns n, square", 1, 101)


def test_with_long_rows_fewer_rows_are_loaded() -> None:
    loaded = load_table("a.csv", b"a\n" + (b"x" * 4_999 + b"\n") * 20)
    assert loaded.notes == ("17 of 20 rows left out",)


def test_a_row_across_several_lines_is_one_row() -> None:
    data = b"a,b\n" + b'"x\ny\nz",1\n' * 150
    loaded = load_table("a.csv", data)
    assert loaded.notes == ("50 of 150 rows left out",)
    assert [s.end_line for s in loaded.sections][-1] == 301


@pytest.mark.parametrize(
    ("path", "data", "label"),
    [
        ("a.csv", b"a;b,c;d\n", "columns a, b,c, d"),
        ("a.tsv", b"a,b\tc\n", "columns a,b, c"),
        ("a.csv", b"a\tb\n", "columns a, b"),
        ("a.csv", b"a,,b\n", "columns a, unnamed, b"),
        ("a.csv", b'"a\nb",c\n', "columns a b, c"),
        ("a.csv", b"\n", "table"),
        ("a.csv", ("x" * 300).encode(), "columns " + "x" * 200 + " …"),
    ],
)
def test_columns(path: str, data: bytes, label: str) -> None:
    assert load_table(path, data).sections[0].label == label


@given(st.text(alphabet=st.sampled_from('a,;"\n\t \x1b'), max_size=60))
def test_a_small_file_is_whole(text: str) -> None:
    sections = load_table("a.csv", text.encode()).sections
    assert "".join(section.text for section in sections) == text

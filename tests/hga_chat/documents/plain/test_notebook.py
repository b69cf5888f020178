import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.plain.notebook import load_notebook
from hga_chat.documents.types import UnreadableError


def notebook(*cells: object) -> bytes:
    return json.dumps({"nbformat": 4, "cells": cells}).encode()


def text(output: object) -> str:
    cell = {"cell_type": "code", "source": "x", "outputs": [output]}
    return load_notebook("a.ipynb", notebook(cell)).sections[0].text


def test_long_lines_of_output_are_cut() -> None:
    found = text({"output_type": "stream", "text": "y" * 5000})
    assert found == "[cell 1, code]\nx\n[output]\n" + "y" * 1000 + " …\n\n"


def test_colours_of_output_are_dropped() -> None:
    found = text({"output_type": "stream", "text": ["\x1b[1;31mred\x1b[0m\n"]})
    assert found == "[cell 1, code]\nx\n[output]\nred\n\n"


def test_a_long_cell_is_cut_into_parts() -> None:
    cell = {"cell_type": "markdown", "source": [f"line {n}\n" for n in range(300)]}
    sections = load_notebook("a.ipynb", notebook(cell)).sections
    assert [s.label for s in sections] == ["cell 1 (markdown)", "cell 1 (markdown), part 2"]


def test_fields_of_another_type_are_ignored() -> None:
    cell = {"cell_type": ["code"], "source": {"a": 1}}
    other = {"cell_type": {"a": 1}, "source": ["x", 3, None, "y"]}
    (section,) = load_notebook("a.ipynb", notebook(cell, other)).sections
    assert section.text == "[cell 2, unknown]\nxy\n\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"cells": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"cells": [}', "invalid JSON on line 1"),
        (b'{\n"cells": \n', "invalid JSON on line 3"),
        (b'{"cells": {}}', "a notebook without cells"),
        (b"[]", "a notebook without cells"),
        (b"\xff\xfe\x00", "has a UTF-16 byte order mark"),
    ],
)
def test_what_is_not_a_notebook_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        load_notebook("a.ipynb", data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cell_type", "source", "outputs", "output_type", "text", "data", "image/png"]
            ),
            inner | st.sampled_from(["code", "stream", "error", "markdown"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4))
def test_any_cells(cells: list[object]) -> None:
    for section in load_notebook("a.ipynb", notebook(*cells)).sections:
        assert section.text.startswith(f"[{section.label.split(' (')[0]}, ")

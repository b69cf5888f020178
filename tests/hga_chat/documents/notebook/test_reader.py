import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.notebook import reader
from hga_chat.documents.notebook.reader import load_notebook
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


def result(**data: object) -> str:
    named = {name.replace("_", "/", 1).replace("_", "+"): value for name, value in data.items()}
    output = {"output_type": "display_data", "data": named}
    return text(output).removeprefix("[cell 1, code]\nx\n[output]\n").rstrip("\n")


TABLE = "<table><tr><th></th><th>price</th></tr><tr><th>0</th><td>4712</td></tr></table>"
OBJECT = "<IPython.core.display.HTML object>"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        # jupyter/nbconvert#145, ipython/ipython#5387
        ({"text_markdown": ["**Result:** ", "4711"], "text_plain": OBJECT}, "**Result:** 4711"),
        ({"text_html": TABLE, "text_plain": "   price\n0   4712"}, "| price\n0 | 4712"),
        ({"text_html": TABLE, "text_plain": "<pandas.io.Styler at 0x7f>"}, "| price\n0 | 4712"),
        ({"text_html": "<b>4713</b>"}, "4713"),
        ({"text_html": "<div>Ridge</div>", "text_plain": "Ridge()"}, None),
        ({"text_html": "<script>draw()</script>", "text_plain": "Chart of sales"}, None),
        ({"text_latex": "$x=4714$", "text_plain": "Eq(x, 4714)", "image_png": "iV"}, "$x=4714$"),
        ({"image_png": "iV", "text_plain": "<Figure size 640x480 with 1 Axes>"}, "[image: png]"),
        ({"image_svg_xml": "<svg/>"}, "[image: svg+xml]"),
        (
            {"application_json": {"a": [1, "é"]}, "text_plain": "<JSON object>"},
            '{\n "a": [\n  1,\n  "é"\n ]\n}',
        ),
        (
            {"application_javascript": "f()", "text_plain": "<Javascript object>"},
            "[left out: application/javascript]\n<Javascript object>",
        ),
        ({"text_plain": "<AxesSubplot: title={'center': 'Tides'}>"}, None),
        ({"text_plain": "\x1b[1mbold\x1b[0m 4.25"}, "bold 4.25"),
    ],
)
def test_the_richest_form_that_is_text_is_shown(data: dict[str, object], shown: str | None) -> None:
    assert result(**data) == (data["text_plain"] if shown is None else shown)


def test_a_stream_written_in_pieces_is_one() -> None:
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": "\r  0%|    | 0/100"},
        {"output_type": "stream", "name": "stderr", "text": ["\r100%|####| 100/100", "\n"]},
        {"output_type": "stream", "name": "stdout", "text": "Final loss: 0.0421\n"},
    ]
    cell = {"cell_type": "code", "source": "train()", "outputs": outputs}
    found = load_notebook("a.ipynb", notebook(cell)).sections[0].text
    assert found == (
        "[cell 1, code]\ntrain()\n[output]\n100%|####| 100/100\nFinal loss: 0.0421\n\n"
    )


def test_the_first_and_last_lines_of_a_long_output_are_kept() -> None:
    lines = [f"epoch {n}" for n in range(100)]
    found = text({"output_type": "stream", "text": "\n".join(lines)}).split("\n")
    assert found[3:13] == lines[:10]
    assert found[13] == "… 80 more lines"
    assert found[14:24] == lines[90:]


def test_a_traceback_is_kept_without_colours() -> None:
    trace = [
        "\x1b[0;31m---------\x1b[0m",
        "\x1b[0;31mKeyError\x1b[0m  Traceback (most recent call last)",
        "\x1b[0;32m<ipython-input>\x1b[0m in \x1b[0;36m<module>\x1b[0;34m\x1b[0m\n----> 1 d['x']\n",
        "\x1b[0;31mKeyError\x1b[0m: 'x'",
    ]
    output = {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": trace}
    assert text(output) == (
        "[cell 1, code]\nx\n[output]\n---------\nKeyError  Traceback (most recent call last)\n"
        "<ipython-input> in <module>\n----> 1 d['x']\nKeyError: 'x'\n\n"
    )


def test_formats_before_4() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Tides"]},
        {
            "cell_type": "code",
            "input": ["table"],
            "outputs": [
                {"output_type": "stream", "stream": "stdout", "text": ["printed\n"]},
                {"output_type": "pyout", "text": [OBJECT], "html": [TABLE]},
                {"output_type": "display_data", "png": "iVBO", "text": ["<Figure>"]},
                {
                    "output_type": "pyerr",
                    "ename": "E",
                    "evalue": "v",
                    "traceback": ["\x1b[31mE\x1b[0m"],
                },
            ],
        },
    ]
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells[:1]}, {"cells": cells[1:]}]})
    loaded = load_notebook("a.ipynb", data.encode())
    assert [(section.label, section.text) for section in loaded.sections] == [
        ("cell 1 (markdown)", "[cell 1, markdown]\n## Tides\n\n"),
        (
            "cell 2 (code)",
            "[cell 2, code]\ntable\n[output]\n"
            "printed\n| price\n0 | 4712\n[image: png]\nE\nE: v\n\n",
        ),
    ]
    assert loaded.left_out == ("images (1)",)


def test_lines_of_format_2_have_no_line_ends() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Tides", "", "At the pier."]},
        {
            "cell_type": "code",
            "input": ["x = 1", "x"],
            "outputs": [{"output_type": "pyout", "text": ["a", "b"]}],
        },
    ]
    data = json.dumps({"nbformat": 2, "worksheets": [{"cells": cells}]}).encode()
    assert [section.text for section in load_notebook("a.ipynb", data).sections] == [
        "[cell 1, markdown]\n# Tides\n\nAt the pier.\n\n",
        "[cell 2, code]\nx = 1\nx\n[output]\na\nb\n\n",
    ]


def test_what_is_left_out_is_said() -> None:
    pasted = "data:image/png;base64," + "iVBO" * 100
    cells = [
        {
            "cell_type": "markdown",
            "source": f"![a](attachment:a.png) ![b]({pasted})",
            "attachments": {"a.png": {"image/png": "iVBO"}},
        },
        {
            "cell_type": "code",
            "source": "x",
            "outputs": [
                {"output_type": "display_data", "data": {"image/png": "iVBO"}},
                {"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": {}}},
                {"output_type": "stream", "name": "stdout", "text": "a\n" * 50},
            ],
        },
    ]
    loaded = load_notebook("a.ipynb", notebook(*cells))
    assert loaded.sections[0].text == (
        "[cell 1, markdown]\n![a](attachment:a.png) ![b](image left out)\n\n"
    )
    assert set(loaded.left_out) == {
        "attached images (1)",
        "images (2)",
        "outputs without text (1)",
        "lines of output (30)",
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r'"cut emoji \ud83d and 4711"', "cut emoji \ufffd and 4711"),  # jupyter/notebook#2680
        (r'["two parts \ud83d", "\ude00."]', "two parts \U0001f600."),
        (r'"\ude00 first"', "\ufffd first"),
        (r'"a NUL \u0000 here"', "a NUL \ufffd here"),
    ],
)
def test_lone_surrogates_cost_themselves_only(source: str, expected: str) -> None:
    data = '{"cells": [{"cell_type": "raw", "source": ' + source + '}, {"cell_type": "code",'
    data += '"outputs": [{"output_type": "stream", "text": ' + source + "}]}]}"
    texts = [section.text for section in load_notebook("a.ipynb", data.encode()).sections]
    assert texts == [
        f"[cell 1, raw]\n{expected}\n\n",
        f"[cell 2, code]\n\n[output]\n{expected}\n\n",
    ]


def test_html_over_the_limits_is_left_to_its_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MAX_HTML_CHARS", 10)
    assert result(text_html=TABLE, text_plain="   price") == "   price"
    assert result(text_html=TABLE) == "[left out: text/html]"


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

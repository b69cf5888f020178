"""Formulas as KaTeX writes them with ``output: "html"``; ``katex.json`` is what two versions of it
made of the TeX."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest

from hga_chat.documents.html.katex import linear
from hga_chat.documents.html.render import render
from hga_chat.documents.html.tree import parse

DATA = json.loads(Path(__file__).with_name("katex.json").read_text("ascii"))
WRITTEN = {
    "x^2": "x^2",
    "x_i^2": "x_i^2",
    "10^{-6}": "10^{−6}",
    "\\frac{a+b}{c}": "(a + b)/c",
    "\\sqrt[3]{x+1}": "∛(x + 1)",
    "\\sum_{i=1}^n i^2": "∑_{i = 1}^n i^2",
    "\\lim_{x\\to 0}\\frac{\\sin x}{x}=1": "lim_{x → 0} (sin x)/x = 1",
    "\\hat{x}+\\bar y+\\vec v": "x̂ + ȳ + v⃗",
    "\\binom{n}{k}": "(n over k)",
    "\\begin{bmatrix}1\\\\2\\\\3\\\\4\\end{bmatrix}": "[1; 2; 3; 4]",
    "\\left|\\frac{a}{b}\\right|": "|a/b|",
    "\\begin{cases}1&x>0\\\\0&\\text{if } x\\le 0\\end{cases}": "{1, x > 0; 0, if x ≤ 0",
    "x\\neq y": "x ≠ y",
    "\\phantom{0}a": "a",
    "\\to": "→",
}


@pytest.mark.parametrize("version", DATA)
@pytest.mark.parametrize("tex", WRITTEN)
def test_formulas_without_mathml(version: str, tex: str) -> None:
    page = render(f"<p>Here {DATA[version][tex]}.</p>")
    (line,) = [line.strip() for line in page.lines if line.strip()]
    shown = line.removeprefix("Here ").removesuffix(".")
    assert normalize("NFC", shown) == normalize("NFC", WRITTEN[tex])


def test_deep_nesting_ends() -> None:
    deep = "<span class=mord>" * 3000 + "x" + "</span>" * 3000
    assert linear(parse(f"<span class=katex-html>{deep}</span>")) == "x"


@pytest.mark.parametrize(("style", "text"), [("top:1.2.3em", "a"), ("top:-em", "a"), ("", "")])
def test_damaged_layout(style: str, text: str) -> None:
    html = (
        "<span class=katex-html><span class=mfrac><span class=vlist>"
        f"<span style='{style}'>a</span></span></span><span class=msupsub>b</span></span>"
    )
    assert linear(parse(html)) == text

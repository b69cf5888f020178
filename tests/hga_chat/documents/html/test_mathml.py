import pytest

from hga_chat.documents.html.mathml import linear
from hga_chat.documents.html.tree import parse

SUM = "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>"
AB = "<mi>a</mi><mi>b</mi>"


def formula(content: str) -> str:
    elements = parse(f"<math>{content}</math>").descendants()
    return linear(next(element for element in elements if element.tag == "math"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"<mfrac>{AB}</mfrac>", "a/b"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mi>c</mi></mfrac>", "(a + b)/c"),
        (f"<mfrac><mfrac>{AB}</mfrac><mi>c</mi></mfrac>", "(a/b)/c"),
        ("<mn>1</mn><mfrac><mn>1</mn><mn>2</mn></mfrac><mi>x</mi>", "1 1/2 x"),
        (f"<mo>(</mo><mfrac linethickness=0>{AB}</mfrac><mo>)</mo>", "(a over b)"),
        ("<msup><mn>10</mn><mrow><mo>-</mo><mn>9</mn></mrow></msup>", "10^{-9}"),
        (f"<msup><mfrac>{AB}</mfrac><mn>2</mn></msup>", "(a/b)^2"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>12</mn></msubsup><mi>y</mi>", "x_i^12 y"),
        ("<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt>", "√(x + 1)"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot><mroot><mi>x</mi><mi>n</mi></mroot>", "∛xroot(n, x)"),
        (f"{SUM}<msub><mi>x</mi><mi>i</mi></msub>", "∑_{i = 1}^n x_i"),
        ("<munder><mi>lim</mi><mi>x</mi></munder><mi>f</mi>", "lim_x f"),
        ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", "sin x"),
        ("<mn>2</mn><mo>&#x2062;</mo><mi>x</mi>", "2x"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", "x̄"),
        (f"<mfenced open='[' close=']' separators=';'>{AB}</mfenced>", "[a; b]"),
        (
            "<mo>(</mo><mtable><mtr><mtd><mi>a</mi></mtd><mtd><mn>0</mn></mtd></mtr>"
            "<mtr><mtd><mn>1</mn></mtd><mtd><mi>b</mi></mtd></mtr></mtable><mo>)</mo>",
            "(a, 0; 1, b)",
        ),
        (
            "<mmultiscripts><mi>C</mi><mn>2</mn><none/><mprescripts/><mn>6</mn><mn>14</mn>"
            "</mmultiscripts>",
            "_6^14C_2",
        ),
        ("<mi>x</mi><mphantom><mi>y</mi></mphantom>", "x"),
        (f"<semantics><mfrac>{AB}</mfrac><annotation>x</annotation></semantics>", "a/b"),
        ("<mi>a</mi><mtext> if </mtext><mi>b</mi>", "a if b"),
        ("<mi>a</mi><mo>=</mo><mo>−</mo><mn>3</mn><mo>−</mo><mi>b</mi>", "a = −3 − b"),
        ("<mo>(</mo><mo>-</mo><mn>3</mn><mo>)</mo><mo>-</mo><mi>b</mi>", "(-3) - b"),
        (
            "<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mo>=</mo><mn>3</mn><mo>,</mo></mtd>"
            "<mtd><mspace/></mtd><mtd><mi>b</mi></mtd></mtr></mtable>",
            "a = 3, b",
        ),
        (
            "<mtable><mtr><mtd><mi>a</mi></mtd><mtd/><mtd/><mtd><mi>b</mi></mtd></mtr>"
            "<mtr><mtd><mi>c</mi></mtd><mtd/><mtd><mi>d</mi></mtd><mtd/></mtr></mtable>",
            "a, , b; c, d",
        ),
        # what is not as the standard says
        ("<mfrac><mi>a</mi></mfrac><msup>x</msup>", "a x"),
    ],
)
def test_linear_forms(content: str, text: str) -> None:
    assert formula(content) == text


def test_deep_formulas_are_harmless() -> None:
    assert "deep" in formula("<mrow><msqrt>" * 5000 + "<mi>deep</mi>")

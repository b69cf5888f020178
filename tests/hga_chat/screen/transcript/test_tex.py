"""TeX math as Unicode. What is expected is how the formulas are written in plain text elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.screen.transcript.tex import drawn


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"x^2 + y_{i+1}", "x² + yᵢ₊₁"),
        (r"10^{-6}", "10⁻⁶"),
        (r"e^{i\pi}+1=0", "e^(iπ)+1 = 0"),
        (r"x_{\text{max}}", "xₘₐₓ"),
        (r"a_{n_k}", "a_(nₖ)"),
        (r"{a+b}^2", "(a+b)²"),
        (r"f'(x)", "f′(x)"),
        (r"90^\circ", "90°"),
        (r"\frac{a+b}{c}", "(a+b)/c"),
        (r"\frac{1}{2a}", "1/(2a)"),
        (r"\frac{1}{n}\sum_{i=1}^{n} x_i", "1/n ∑ᵢ₌₁ⁿ xᵢ"),
        (r"\sqrt{x^2+1} + \sqrt[3]{x}", "√(x²+1) + ∛x"),
        (r"\frac{-b \pm \sqrt{b^2-4ac}}{2a}", "(−b ± √(b²−4ac))/(2a)"),
        (r"\int_0^\infty e^{-x^2}\,dx=\frac{\sqrt{\pi}}{2}", "∫₀^∞ e^(−x²) dx = √π/2"),
        (r"\lim_{x \to 0} \frac{\sin x}{x}", "lim_(x → 0) (sin x)/x"),
        (r"2\sin x\cos y", "2 sin x cos y"),
        (r"\sin\theta", "sin θ"),
        (r"\Delta t \approx 5\%", "Δt ≈ 5%"),
        (r"\nabla \cdot \vec{E} = \frac{\rho}{\varepsilon_0}", "∇ · E\u20d7 = ρ/ε₀"),
        (r"\left\{ x \in \mathbb{N} \mid x \not= 0 \right\}", "{ x ∈ ℕ ∣ x ≠ 0 }"),
        (r"\text{if } x > 0", "if x > 0"),
        (r"\operatorname{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V", "softmax(QKᵀ/√dₖ)V"),
        (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", "(a, b; c, d)"),
        (r"\begin{align*} x &= 1 \\ y &= 2 \end{align*}", "x = 1\ny = 2"),
    ],
)
def test_formulas_are_drawn(source, text):
    assert drawn(source) == text


@pytest.mark.parametrize(
    ("name", "sign"),
    [("alpha", "α"), ("Omega", "Ω"), ("leq", "≤"), ("neq", "≠"), ("subseteq", "⊆"), ("to", "→")],
)
def test_symbols(name, sign):
    assert drawn(f"\\{name}") == sign


@pytest.mark.parametrize(
    "source", [r"\foo x", r"\frac{a", r"x^{", "}", "a & b", r"\begin{foo}\end{foo}", "{" * 999, ""]
)
def test_what_is_not_known_or_unfinished_is_not_drawn(source):
    assert drawn(source) is None


@given(
    st.lists(
        st.sampled_from(
            [
                "\\frac",
                "{",
                "}",
                "^",
                "_",
                "x",
                " ",
                "\\\\",
                "\\left.",
                "'",
                "\\sqrt",
                "[",
                "]",
                "\\begin{align}",
                "&",
                "\\end{align}",
                "\\text",
                "\\",
            ]
        )
    ).map("".join)
)
def test_no_formula_raises(source):
    assert drawn(source) is None or drawn(source).strip()

import pytest

from hga_chat.screen.transcript.markdown import BlockSplitter, Line, Table, render

ANSWER = """Intro with **bold**
over two lines.

# Heading
- first
  - nested
- second, after a blank

  still second
1. one
2. two

```python
- not a list

# not a heading
```
After.

| a | b |
|---|---|
| 1 | 2 |

> quoted

The sum:
$$
a

+ b
$$
\\[
- c
\\]
"""
BLOCKS = [
    "Intro with **bold**\nover two lines.",
    "# Heading",
    "- first\n  - nested",
    "- second, after a blank\n\n  still second",
    "1. one",
    "2. two",
    "```python\n- not a list\n\n# not a heading\n```",
    "After.",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "> quoted",
    "The sum:",
    "$$\na\n\n+ b\n$$",
    "\\[\n- c\n\\]",
]


def split(text, size):
    splitter = BlockSplitter()
    blocks = []
    for start in range(0, len(text), size):
        blocks += splitter.push(text[start : start + size])
    return blocks + splitter.finish()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_blocks_do_not_depend_on_how_the_text_arrives(size):
    assert [block.text for block in split(ANSWER, size)] == BLOCKS


def test_gaps_separate_blocks_that_are_not_tight():
    gaps = {block.text.split("\n")[0]: block.gap for block in split(ANSWER, 1000)}
    assert not gaps["Intro with **bold**"]
    assert gaps["# Heading"]
    assert gaps["- first"]  # below a heading
    assert not gaps["- second, after a blank"]
    assert not gaps["2. two"]
    assert gaps["```python"]
    assert gaps["After."]


def test_finished_and_tail_together_are_the_text():
    splitter = BlockSplitter()
    done = [block.text for block in splitter.push("One.\n\nTwo goes on\nand on")]
    assert done == ["One."]
    assert splitter.tail.text == "Two goes on\nand on"


def test_open_fence_stays_in_the_tail():
    splitter = BlockSplitter()
    assert splitter.push("```\na\n\nb\n") == []
    assert splitter.in_fence
    assert [block.text for block in splitter.push("```\n")] == ["```\na\n\nb\n```"]
    assert not splitter.in_fence


def test_a_year_at_the_start_of_a_line_is_not_a_list():
    assert [block.text for block in split("born in\n1986. A year\n", 3)] == [
        "born in\n1986. A year"
    ]


def plain(parts):
    return [part.first.plain + part.content.plain for part in parts if isinstance(part, Line)]


def test_lists_are_indented_behind_their_marks():
    parts = render("- one\n  - two\n\n    more")
    assert plain(parts) == ["• one", "  ◦ two", "    ", "    more"]
    assert parts[1].rest.plain == "    "


def test_numbers_start_where_the_text_says():
    assert plain(render("9. nine\n10. ten")) == ["9. nine", "10. ten"]


def test_code_is_verbatim_behind_a_gutter():
    parts = render("```python\nif a[0]:\n    b()\n```")
    assert [part.content.plain for part in parts] == ["if a[0]:", "    b()"]
    assert {part.first.plain for part in parts} == {"▏ "}
    assert parts[0].content.spans


def test_unknown_language_is_plain_code():
    assert [part.content.plain for part in render("```nonsense\nx  y\n```")] == ["x  y"]


def test_markup_of_the_screen_stays_text():
    text = "[bold]a[/bold] [@click=app.quit]b[/] [link=x]c[/link]"
    (part,) = render(text)
    assert part.content.plain == text
    assert not any("@click" in str(span.style) for span in part.content.spans)


def test_html_and_entities_stay_text():
    assert plain(render("<script>x</script> a")) == ["<script>x</script> a"]


def test_links_show_their_target():
    assert plain(render("[docs](https://a.org/b)")) == ["docs (https://a.org/b)"]
    assert plain(render("<https://a.org>")) == ["https://a.org"]


def test_emphasis_becomes_style():
    (part,) = render("a **b** *c*")
    assert part.content.plain == "a b c"
    assert [str(span.style) for span in part.content.spans] == ["bold", "italic"]


def test_table_keeps_its_cells():
    (table,) = render("| a | b |\n|---|---|\n| 1 | `2` |")
    assert isinstance(table, Table)
    assert [[cell.plain for cell in row] for row in table.rows] == [["a", "b"], ["1", "2"]]


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("Let $x^2$ be, \\(x_1\\) and $$x_2$$ \\[x_3\\].", "Let x² be, x₁ and x₂ x₃."),
        ("$a$, $b$: $n + 1$ in $O(n)$-time", "a, b: n + 1 in O(n)-time"),
        ("**$\\pi$** of $5\\%$", "π of 5%"),
        # A formula that cannot be drawn stays as it is written, and no sign in it is emphasis.
        ("$\\foo_a * b_c$ and *d*", "$\\foo_a * b_c$ and d"),
    ],
)
def test_math_is_drawn(markdown, shown):
    assert plain(render(markdown)) == [shown]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "From $5-$6, $10/$20 or US$5=$7 to 8$, 100$<200$.",
        "$HOME/$USER, $PATH:$HOME and $$ is the shell, $$ again",
        "between $5 (was 7$) and more",
    ],
)
def test_prices_and_variables_are_no_math(text):
    assert plain(render(text)) == [text]


def test_code_is_no_math():
    assert plain(render("`$x^2$` and\n\n```\n$y^2$\n$$\n```")) == [
        "$x^2$ and",
        "",
        "▏ $y^2$",
        "▏ $$",
    ]


def test_formulas_between_lines_of_their_own():
    equations = "$$\n\\begin{aligned}\na &= b \\\\\n+ c &= d\n\\end{aligned}\n$$"
    assert plain(render(f"So\n{equations}\nthen")) == ["So", "", "  a = b", "  + c = d", "", "then"]
    assert plain(render("- so:\n  \\[\n  a = b\n  \\]\n- c"))[2] == "    a = b"
    assert plain(render("$$\nnever closed")) == ["$$", "never closed"]

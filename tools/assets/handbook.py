"""Render assets/samples/handbook/*.md into assets/samples/handbook.pdf.

Needs fpdf2 (``pip install fpdf2``). The same text gives the same file. Only the Markdown that the
handbook uses is understood: two levels of headings, paragraphs, lists and tables.

    python -m tools.assets.handbook
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
TITLE = "Operations Handbook of Kestrel Ridge Observatory"
PAGE_MM = (176.0, 250.0)
MARGIN_MM = 18.0
BODY_POINTS = 10.2
LINE_MM = 4.65
UNNUMBERED = ("00", "15")


class Handbook(FPDF):
    """A book page with the chapter on top and the page's label below."""

    def __init__(self) -> None:
        super().__init__(unit="mm", format=PAGE_MM)
        self.running_head = ""
        self.chapters: list[tuple[str, str]] = []
        self.set_margin(MARGIN_MM)
        self.set_auto_page_break(True, margin=18)
        self.set_title(TITLE)
        self.set_author("Kestrel Ridge Observatory")
        self.set_lang("en-GB")
        self.set_creation_date(datetime(2023, 9, 1, tzinfo=UTC))

    def header(self) -> None:
        """Write the chapter's title, but not on the page where it begins."""
        if self.running_head:
            self.set_font("Helvetica", "I", 8)
            self.cell(0, 5, self.running_head, align="R", new_x="LMARGIN", new_y="NEXT")
            self.ln(4)

    def footer(self) -> None:
        """Write the page's label, but not on the title page."""
        if self.page > 1:
            self.set_y(-14)
            self.set_font("Helvetica", "", 8)
            self.cell(0, 5, self.get_page_label(), align="C")

    def text_block(self, text: str, indent: float = 0, mark: str = "") -> None:
        """Write a paragraph, or a list item with its mark."""
        self.set_font("Times", "", BODY_POINTS)
        if self.will_page_break(2 * LINE_MM):
            self.add_page()
        if mark:
            self.cell(indent, LINE_MM, mark)
        self.set_x(MARGIN_MM + indent)
        self.multi_cell(0, LINE_MM, text, align="L", new_x="LMARGIN", new_y="NEXT")


def blocks(text: str) -> Iterator[list[str]]:
    """Yield the runs of lines between blank lines."""
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines != [""]:
            yield lines


def render(pdf: Handbook, lines: list[str], number: str) -> None:
    """Write one block: a heading, a list, a table or a paragraph."""
    first = lines[0]
    if first.startswith("# "):
        title = f"{number} {first[2:]}".strip()
        pdf.running_head = ""
        if number == "1":
            pdf.add_page(label_style="D", label_start=1)
        else:
            pdf.add_page()
        pdf.running_head = title
        pdf.chapters.append((title, pdf.get_page_label()))
        pdf.start_section(title)
        pdf.set_font("Helvetica", "B", 17)
        pdf.multi_cell(0, 8, title, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(4)
    elif first.startswith("## "):
        if pdf.will_page_break(4 * LINE_MM):
            pdf.add_page()
        pdf.ln(2)
        pdf.start_section(first[3:], level=1)
        pdf.set_font("Helvetica", "B", 11.5)
        pdf.multi_cell(0, 6.5, first[3:], align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(0.5)
    elif first.startswith("|"):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        render_table(pdf, [rows[0], *rows[2:]])
    elif first.startswith("- "):
        for line in lines:
            pdf.text_block(line[2:], indent=5, mark="-")
        pdf.ln(2)
    elif first[0].isdigit() and ". " in first[:4]:
        for line in lines:
            mark, item = line.split(". ", 1)
            pdf.text_block(item, indent=7, mark=f"{mark}.")
        pdf.ln(2)
    else:
        pdf.text_block(" ".join(lines))
        pdf.ln(2)


def render_table(pdf: Handbook, rows: list[list[str]]) -> None:
    """Write a table whose columns fit their longest cells."""
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(len(rows[0]))]
    pdf.set_font("Times", "", BODY_POINTS)
    if pdf.will_page_break(len(rows) * (LINE_MM + 1)):
        pdf.add_page()
    pdf.set_line_width(0.1)
    with pdf.table(
        col_widths=widths,
        line_height=LINE_MM,
        borders_layout="HORIZONTAL_LINES",
        text_align="LEFT",
        padding=0.4,
    ) as table:
        for row in rows:
            table.row(row)
    pdf.ln(3)


def render_title(pdf: Handbook) -> None:
    """Write the title page, which is page i."""
    pdf.add_page(label_style="r", label_start=1)
    pdf.set_y(70)
    pdf.set_font("Helvetica", "B", 24)
    pdf.multi_cell(0, 11, "Operations Handbook", align="C", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", "", 15)
    pdf.multi_cell(0, 10, "Kestrel Ridge Observatory", align="C", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(8)
    pdf.set_font("Times", "I", 11)
    pdf.multi_cell(0, 6, "Seventh edition", align="C")


def render_contents(pdf: Handbook, chapters: list[tuple[str, str]]) -> None:
    """Write the table of contents."""
    pdf.add_page()
    pdf.start_section("Contents")
    pdf.set_font("Helvetica", "B", 17)
    pdf.multi_cell(0, 8, "Contents", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)
    pdf.set_font("Times", "", 11)
    for title, label in chapters:
        pdf.cell(100, 7, title)
        pdf.cell(0, 7, label, align="R", new_x="LMARGIN", new_y="NEXT")


def build(chapters: list[tuple[str, str]]) -> Handbook:
    """Render the whole book with the given table of contents."""
    pdf = Handbook()
    render_title(pdf)
    render_contents(pdf, chapters)
    number = 0
    for source in sorted((SAMPLES / "handbook").glob("[0-9]*.md")):
        for block in blocks(source.read_text("utf-8")):
            numbered = block[0].startswith("# ") and source.name[:2] not in UNNUMBERED
            number += numbered
            render(pdf, block, str(number) if numbered else "")
    return pdf


def main() -> None:
    """Render twice: the first pass finds the page numbers for the table of contents."""
    pages = build([("", "")] * 19).chapters
    pdf = build(pages)
    if pdf.chapters != pages:
        raise SystemExit("the table of contents moved the pages")
    target = SAMPLES / "handbook.pdf"
    pdf.output(str(target))
    print(f"{target}: {len(pdf.pages)} pages, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

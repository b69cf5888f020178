"""Files from bug reports of other programs, with the text that pdftotext and the standard give."""

from pathlib import Path

import pytest

from hga_chat.documents.pdf.reader import load_pdf

CORPUS = Path(__file__).parents[3] / "data" / "pdf"


def _texts(name: str) -> list[str]:
    path = CORPUS / f"{name}.pdf"
    return [section.text for section in load_pdf(path.name, path.read_bytes()).sections]


def test_values_of_a_form() -> None:
    # docling-project/docling#2677, pdfminer/pdfminer.six#240
    assert _texts("form_values") == [
        "Application for insurance\n"
        "Name: Erika Mustermann\n"
        "Smoker: X\n"
        "Decision: Approved with limit 4711 EUR"
    ]


def test_lines_on_every_page_are_kept_once() -> None:
    # datalab-to/marker#851, mdgate/converters#71
    letters = _texts("merged_letters")
    for line in (
        "ACME Water Ltd, account XX00 1234 5678 9012, BIC ACMEXX22",
        "Pay within 14 days of 2 June 2025. Questions: desk 7, ground floor.",
    ):
        assert [line in text for text in letters] == [True, False, False, False]
    assert letters[2].startswith("Dear Carla Probe,\nplease pay 99.90 euros")
    policy = _texts("policy_heads")
    head = "Policy No. 4711-0815-K, insured sum 250,000 EUR, valid to 2027-03-31"
    assert [head in text for text in policy] == [True] + [False] * (len(policy) - 1)
    assert _texts("same_labels") == ["Keep below 5 degrees"] * 5


@pytest.mark.parametrize(
    ("cmap", "text"),
    [
        ("KSCms-UHC-H", "가격은 삼십원"),
        ("KSC-EUC-H", "가격은 삼십원"),
        ("EUC-H", "価格は三十円です"),
        ("H", "価格は三十円です"),
        ("B5pc-H", "價格是三十元"),
    ],
)
def test_predefined_cmaps(cmap: str, text: str) -> None:
    # py-pdf/pypdf#2356, #3799
    assert _texts(f"cid_{cmap}") == [text]


def test_the_encoding_of_the_font_resource_wins() -> None:
    # mozilla/pdf.js issue1002.pdf
    assert _texts("encoding_overridden") == ["Pay 1,100 crowns. No more."]


def test_replacement_text() -> None:
    # docling-project/docling-parse#300, py-pdf/pypdf#4001
    assert _texts("actual_text") == ["The code is 4711 today."]


def test_numbers_in_right_to_left_text() -> None:
    # py-pdf/pypdf#1638, #1629
    assert _texts("hebrew") == ["המחיר הוא 4711 שקל ליום"]
    assert _texts("arabic") == ["السعر 4711 دولار"]


def test_empty_cells() -> None:
    # firecrawl/pdf-inspector#229, run-llama/liteparse#400
    (text,) = _texts("empty_cells")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.split("\n")[1:5]]
    assert rows == [
        ["Month", "Rent", "Heating", "Repairs", "Paid"],
        ["January", "800", "120", "", "920"],
        ["February", "800", "", "75", "875"],
        ["March", "", "118", "40", "158"],
    ]


def test_overprinted_text() -> None:
    # py-pdf/pypdf#1731, Unstructured-IO/unstructured#4215
    assert _texts("fake_bold") == ["Total 4711\nAmount due 4712"]

"""PDF: one section per page that has text."""

from pathlib import Path
from typing import TypedDict

from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import extract
from hga_chat.documents.types import LoadedFile, Section, UnreadableError

TIMEOUT_S = 120.0
_WORKER = Path(__file__).with_name("worker.py")


class _Page(TypedDict):
    label: str
    heading: str | None
    text: str
    images: bool
    problem: str | None


def load_pdf(path: str, data: bytes) -> LoadedFile:
    """Load a PDF as one section per page that has text.

    Labels name the page and a heading of the outline: the one in force where the page begins, else
    the first on the page. Notes list the pages without text; ``left_out`` says what else is not
    in the sections.

    Raises:
        UnreadableError: The file is encrypted, damaged, without pages or text, or over the limits
            on pages, text, memory or time.
    """
    answer = extract(_WORKER, data, "PDF", Limits(seconds=TIMEOUT_S))
    pages: list[_Page] = answer["pages"]
    sections = []
    empty, scanned, failed = [], [], []
    for number, page in enumerate(pages, start=1):
        if page["text"]:
            label = f"page {page['label']}"
            if page["label"] != str(number):
                label += f" (sheet {number} of {len(pages)})"
            if page["heading"]:
                label += f", {page['heading']}"
            sections.append(Section(path, label, page["text"], None, None, page["label"]))
        elif page["problem"]:
            failed.append(page["label"])
        elif page["images"]:
            scanned.append(page["label"])
        else:
            empty.append(page["label"])
    if not sections and failed:
        problem = next(page["problem"] for page in pages if page["problem"])
        raise UnreadableError(f"damaged PDF: {problem}")
    if not sections:
        where = f"any of {len(pages)} pages" if len(pages) > 1 else "its only page"
        raise UnreadableError(f"no text on {where} (a scan?); run OCR on it first")
    notes = []
    if scanned:
        notes.append(f"{_name_pages(scanned)}: no text, only images (a scan?); run OCR on it first")
    if empty:
        notes.append(f"{_name_pages(empty)}: no text (blank or only drawings)")
    if failed:
        notes.append(f"{_name_pages(failed)}: damaged")
    return LoadedFile(
        tuple(sections), tuple(notes), left_out=tuple(answer["left_out"]), title=answer["title"]
    )


def _name_pages(labels: list[str]) -> str:
    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    return f"{len(labels)} pages ({shown})" if len(labels) > 1 else f"page {shown}"

"""Extracts the text of PDF page by page; a worker of the sandbox."""

import io
from typing import Any

from pypdf import PageObject, PdfReader
from pypdf.errors import DependencyError, EmptyFileError, PyPdfError
from pypdf.generic import DictionaryObject

from hga_chat.documents.pdf.columns import in_reading_order
from hga_chat.documents.pdf.fonts import Fonts
from hga_chat.documents.pdf.headers_footers import without_headers_and_footers
from hga_chat.documents.pdf.lines import Line, extract_lines
from hga_chat.documents.pdf.outline import extract_headings, headings_of_pages
from hga_chat.documents.pdf.text_repair import Vocabulary, plain
from hga_chat.documents.sandbox.limits import MAX_TEXT_CHARS, TOO_MUCH_TEXT

MAX_PAGES = 2_000
_MAX_FORM_DEPTH = 5


def _labels(reader: PdfReader, count: int) -> list[str]:
    try:
        labels = [plain(label).strip() for label in reader.page_labels]
    except Exception:  # noqa: BLE001 - a damaged label tree raises anything
        labels = []
    labels = labels[:count] + [""] * (count - len(labels))
    return [label or str(number) for number, label in enumerate(labels, start=1)]


def _one_line(error: Exception) -> str:
    return " ".join(plain(str(error)).split())[:200]


def _has_images(holder: PageObject | DictionaryObject, depth: int = 0) -> bool:
    """Whether a page or form shows an image; damage counts as no image."""
    try:
        resources = holder.get("/Resources", {})
        objects = resources.get_object().get("/XObject", {}).get_object().values()
        for entry in objects:
            shown = entry.get_object()
            if shown.get("/Subtype") == "/Image":
                return True
            if depth < _MAX_FORM_DEPTH and _has_images(shown, depth + 1):
                return True
        return depth == 0 and any(op == b"INLINE IMAGE" for _, op in _operations(holder))
    except Exception:  # noqa: BLE001 - damaged resources raise anything
        return False


def _operations(page: Any) -> list[tuple[Any, bytes]]:
    content = page.get_contents()
    return content.operations if content is not None else []


def extract(data: bytes) -> dict[str, Any]:
    """Return the pages of a PDF as JSON, or ``{"error": reason}``.

    Returns:
        ``{"pages": [{"label", "heading", "text", "images", "problem"}]}``. ``heading`` is the
        outline's title to name the page by; ``images`` says whether a page without text has any;
        ``problem`` is the error on a damaged page.
    """
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "encrypted PDF; save a copy without the password first"}
        count = len(reader.pages)
    except EmptyFileError:
        return {"error": "empty"}
    except (DependencyError, NotImplementedError) as error:
        return {"error": f"encrypted PDF: {_one_line(error)}"}
    except PyPdfError as error:
        return {"error": f"damaged PDF: {_one_line(error)}"}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file raises anything
        return {"error": f"damaged PDF: {type(error).__name__}: {_one_line(error)}"}
    if count == 0:
        return {"error": "a PDF without pages"}
    if count > MAX_PAGES:
        return {"error": f"{count:,} pages; the limit is {MAX_PAGES:,}"}
    fonts = Fonts()
    pages: list[dict[str, Any]] = []
    extracted: list[list[Line]] = []
    chars = 0
    labels = _labels(reader, count)
    for index, label in enumerate(labels):
        lines: list[Line] = []
        problem = None
        try:
            lines = extract_lines(reader.pages[index], fonts)
        except Exception as error:  # noqa: BLE001 - a damaged page raises anything
            problem = f"{type(error).__name__}: {_one_line(error)}"
        chars += sum(len(line.text) for line in lines)
        if chars > MAX_TEXT_CHARS:
            return {"error": TOO_MUCH_TEXT}
        pages.append({"label": label, "problem": problem})
        extracted.append(lines)
    headings = extract_headings(reader)
    body = without_headers_and_footers(extracted, labels, headings)
    ordered = [in_reading_order(page_lines) for page_lines in body]
    titles = headings_of_pages(headings, ordered)
    texts = [[plain(line.text).rstrip() for line in page] for page in ordered]
    vocabulary = Vocabulary.of(texts)
    for index, (page, page_lines) in enumerate(zip(pages, texts, strict=True)):
        text = "\n".join(vocabulary.rejoined(page_lines)).strip("\n")
        page["text"] = text if text.strip() else ""
        page["heading"] = titles[index]
        page["images"] = not page["text"] and _has_images(reader.pages[index])
    return {"pages": pages}

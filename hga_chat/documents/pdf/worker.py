"""Extracts the text of PDF page by page; a worker of the sandbox."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pypdf import PageObject, PdfReader
from pypdf.errors import DependencyError, EmptyFileError, LimitReachedError, PyPdfError

from hga_chat.documents.pdf.annotations import Shown, annotations_of, with_annotations
from hga_chat.documents.pdf.columns import in_reading_order
from hga_chat.documents.pdf.glyphs import Content, Glyph, Interpreter, TooMuchError
from hga_chat.documents.pdf.headers_footers import without_headers_and_footers
from hga_chat.documents.pdf.lazy_reader import LazyReader
from hga_chat.documents.pdf.lines import Line, lines_of
from hga_chat.documents.pdf.objects import dictionary, is_true, items, resolved
from hga_chat.documents.pdf.outline import Heading, extract_headings, headings_of_pages
from hga_chat.documents.pdf.second_reader import SecondReader
from hga_chat.documents.pdf.tables import with_cells_apart
from hga_chat.documents.pdf.text_repair import Vocabulary, plain
from hga_chat.documents.sandbox.limits import MAX_TEXT_CHARS, TOO_MUCH_TEXT

MAX_PAGES = 2_000
_NO_TITLE = re.compile(
    r"^(?:untitled|title$|\(?(?:anonymous|unspecified)\)?$|microsoft word|document\d*$|slide 1$)"
    r"|^\W*$|\.[a-z]{2,4}$|[\\/]{2}",
    re.IGNORECASE,
)
"""Titles that programs write where a person has given none."""
_MIN_UNKNOWN = 3
_MIN_UNKNOWN_SHARE = 0.02


@dataclass
class _Page:
    """A page while it is extracted."""

    label: str
    lines: list[Line]
    problem: str | None = None
    images: int = 0
    unknown: int = 0
    hidden: int = 0
    outside: int = 0


def extract(data: bytes) -> dict[str, Any]:
    """Return the pages of a PDF as JSON, or ``{"error": reason}``.

    Returns:
        ``{"pages": [{"label", "heading", "text", "images", "problem"}], "left_out": [note],
        "title": text}``.
        ``heading`` is the outline's title to name the page by; ``images`` says whether a page
        without text has any; ``problem`` is the error on a damaged page; a note says in a few
        words what of the document is not in the text; the title is empty if the file has none.
    """
    second = SecondReader(data)
    reader: PdfReader | None = None
    error = None
    try:
        reader = LazyReader(data)
        if reader.is_encrypted and not reader.decrypt(""):
            # Where only attachments are encrypted, PDFium reads the rest.
            if not second.count:
                return {"error": "encrypted PDF; save a copy without the password first"}
            reader, count = None, second.count
        else:
            count = len(reader.pages)
    except EmptyFileError:
        return {"error": "empty"}
    except (DependencyError, NotImplementedError) as caught:
        return {"error": f"encrypted PDF: {_one_line(caught)}"}
    except MemoryError:
        raise
    except PyPdfError as caught:
        error = f"damaged PDF: {_one_line(caught)}"
    except Exception as caught:  # noqa: BLE001 - a damaged file raises anything
        error = f"damaged PDF: {type(caught).__name__}: {_one_line(caught)}"
    if error or count == 0:
        reader = None
        count = second.count
    if count == 0:
        return {"error": error or "a PDF without pages"}
    if count > MAX_PAGES:
        return {"error": f"{count:,} pages; the limit is {MAX_PAGES:,}"}
    labels = _labels(reader, second, count)
    pages = []
    chars = 0
    interpreter = Interpreter(reader) if reader else None
    for index, label in enumerate(labels):
        page = _page(reader, interpreter, second, index, label)
        chars += sum(len(line.text) for line in page.lines)
        if chars > MAX_TEXT_CHARS:
            return {"error": TOO_MUCH_TEXT}
        pages.append(page)
    headings = extract_headings(reader) if reader else []
    answer = {**_answer(pages, headings, _attachments(reader)), "title": _title(reader)}
    return _with_form(answer, reader) if reader else answer


def _with_form(answer: dict[str, Any], reader: PdfReader) -> dict[str, Any]:
    """Put a dynamic form in place of the pages that stand in for it."""
    lines: Sequence[str] = ()
    hidden = 0
    try:
        if not is_true(reader.root_object.get("/NeedsRendering")):
            return answer
        from hga_chat.documents.pdf.xfa import form_of

        form = form_of(reader)
        lines, hidden = form.lines, form.hidden
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110 - a damaged catalogue or form raises anything
        pass
    text = "\n".join(plain(line) for line in lines).strip()
    if not text:
        if not any(page["text"] for page in answer.get("pages", ())):
            return {"error": "a dynamic form (XFA) that cannot be read; print it to a PDF first"}
        return {**answer, "left_out": [*answer["left_out"], "a dynamic form (XFA)"]}
    if len(text) > MAX_TEXT_CHARS:
        return {"error": TOO_MUCH_TEXT}
    page = {"label": "1", "heading": None, "text": text, "images": False, "problem": None}
    left_out = [f"hidden parts of the form ({hidden:,})"] if hidden else []
    return {**answer, "pages": [page], "left_out": left_out}


def _page(
    reader: PdfReader | None,
    interpreter: Interpreter | None,
    second: SecondReader,
    index: int,
    label: str,
) -> _Page:
    content: Content | None = None
    found = _Page(label, [])
    source: PageObject | None = None
    if reader is not None and interpreter is not None:
        try:
            source = reader.pages[index]
            content = interpreter.page(source)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged page raises anything
            found.problem = f"{type(error).__name__}: {_one_line(error)}"
            if isinstance(error, LimitReachedError | TooMuchError):
                return found  # PDFium has no such limits
    annotations: list[Shown] = []
    unknown = 0
    if content is not None and source is not None and interpreter is not None:
        annotations = list(annotations_of(source, interpreter))
        unknown = content.unknown + sum(shown.unknown for shown in annotations)
    if content is None or _is_unreadable(content, unknown):
        other = second.page(index)
        if other is not None and other.glyphs and (content is None or other.unknown < unknown):
            other.images = content.images if content else 0
            content, source, annotations, unknown = other, None, [], other.unknown
            found.problem = None
    if content is None:
        return found
    found.images, found.unknown, found.hidden = content.images, unknown, content.hidden
    glyphs = content.glyphs
    if source is not None:
        glyphs = _on_page(glyphs, source)
        found.outside = len(content.glyphs) - len(glyphs)
    found.lines = with_annotations(lines_of(glyphs, content.rules), annotations)
    return found


def _is_unreadable(content: Content, unknown: int) -> bool:
    """Whether a page has too many characters that the file does not name."""
    shown = sum(len(glyph.text.strip()) for glyph in content.glyphs)
    return unknown >= max(_MIN_UNKNOWN, _MIN_UNKNOWN_SHARE * shown)


def _on_page(glyphs: Sequence[Glyph], page: PageObject) -> list[Glyph]:
    """Return the glyphs that are at least partly on the page; all of them if none is."""
    try:
        box = page.mediabox
        left, bottom, right, top = (float(value) for value in (*box.lower_left, *box.upper_right))
    except Exception:  # noqa: BLE001 - a damaged box raises anything
        return list(glyphs)
    left, right = min(left, right), max(left, right)
    bottom, top = min(bottom, top), max(bottom, top)
    inside = [
        glyph
        for glyph in glyphs
        if min(glyph.x, glyph.to_x) - glyph.size <= right
        and max(glyph.x, glyph.to_x) + glyph.size >= left
        and min(glyph.y, glyph.to_y) - glyph.size <= top
        and max(glyph.y, glyph.to_y) + glyph.size >= bottom
    ]
    return inside or list(glyphs)


def _answer(pages: list[_Page], headings: list[Heading], attachments: int) -> dict[str, Any]:
    labels = [page.label for page in pages]
    extracted = [page.lines for page in pages]
    body = without_headers_and_footers(extracted, labels, headings)
    ordered = [with_cells_apart(in_reading_order(lines)) for lines in body]
    titles = headings_of_pages(headings, ordered)
    texts = [[plain(line.text).rstrip() for line in lines] for lines in ordered]
    vocabulary = Vocabulary.of(texts)
    answer = []
    for page, shown, lines, title in zip(pages, ordered, texts, titles, strict=True):
        text = "\n".join(vocabulary.rejoined(lines, set(_in_columns(shown)))).strip("\n")
        answer.append(
            {
                "label": page.label,
                "heading": title,
                "text": text if text.strip() else "",
                "images": page.images > 0,
                "problem": page.problem,
            }
        )
    shorter = sum(len(kept) < len(lines) for kept, lines in zip(body, extracted, strict=True))
    return {"pages": answer, "left_out": _left_out(pages, shorter, attachments)}


def _in_columns(lines: Sequence[Line]) -> Iterator[int]:
    """Yield the numbers of the lines in which the last column of the line before goes on."""
    for number, (before, line) in enumerate(pairwise(lines), start=1):
        last = before.pieces[-1] if len(before.pieces) > 1 else None
        if last is not None and any(
            left.right <= last.left and right.left < last.right and last.left < right.right
            for left, right in pairwise(line.pieces)
        ):
            yield number


def _left_out(pages: Sequence[_Page], shorter: int, attachments: int) -> list[str]:
    """Say in a few words each what is not in the text."""
    counts = (
        (shorter, "repeated headers and footers", "on {} pages"),
        (sum(page.images for page in pages), "images", "{}"),
        (sum(page.hidden > 0 for page in pages), "text of layers that are off", "on {} pages"),
        (sum(page.outside > 0 for page in pages), "text outside the page", "on {} pages"),
        (sum(page.unknown for page in pages), "characters without a name in the file", "{}"),
        (attachments, "attached files", "{}"),
    )
    return [
        f"{what} ({where.format(f'{count:,}')})".replace("on 1 pages", "on 1 page")
        for count, what, where in counts
        if count
    ]


def _labels(reader: PdfReader | None, second: SecondReader, count: int) -> list[str]:
    try:
        given = reader.page_labels if reader is not None else second.labels()
        labels = [plain(label).strip() for label in given]
    except Exception:  # noqa: BLE001 - a damaged label tree raises anything
        labels = []
    labels = labels[:count] + [""] * (count - len(labels))
    return [label or str(number) for number, label in enumerate(labels, start=1)]


def _title(reader: PdfReader | None) -> str:
    """Return the title that the document states, unless a program has written a file name."""
    try:
        information = reader.metadata if reader is not None else None
        title = " ".join(plain(str((information and information.title) or "")).split())
    except Exception:  # noqa: BLE001 - damaged information raises anything
        return ""
    return "" if _NO_TITLE.search(title) else title


def _one_line(error: Exception) -> str:
    return " ".join(plain(str(error)).split())[:200]


def _attachments(reader: PdfReader | None) -> int:
    """Count the files that the document names as attached."""
    if reader is None:
        return 0
    try:
        names = dictionary(dictionary(reader.root_object.get("/Names")).get("/EmbeddedFiles"))
        nodes, count = [names], 0
        for node in nodes:
            count += len(items(node.get("/Names"))) // 2
            if len(nodes) < 1000:
                nodes += [dictionary(resolved(kid)) for kid in items(node.get("/Kids"))]
    except Exception:  # noqa: BLE001 - a damaged catalogue raises anything
        return 0
    return count

"""Extracts the text of HTML; a worker of the sandbox."""

from typing import Any

from hga_chat.documents.html.decode import decode_html
from hga_chat.documents.html.render import render
from hga_chat.documents.sandbox.limits import MAX_TEXT_CHARS, TOO_MUCH_TEXT
from hga_chat.documents.types import UnreadableError


def extract(data: bytes) -> dict[str, Any]:
    """Return the text of an HTML page as JSON, or ``{"error": reason}``."""
    try:
        text = decode_html(data)
    except UnreadableError as error:
        return {"error": str(error)}
    page = render(text, keep_lines=True)
    if not any(page.lines):
        page = render(text, keep_lines=True, drop_navigation=False)
    if not any(page.lines):
        return {"error": "no text; scripts build the page in the browser"}
    if sum(map(len, page.lines)) > MAX_TEXT_CHARS:
        return {"error": TOO_MUCH_TEXT}
    return page.answer()

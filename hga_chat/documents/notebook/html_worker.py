"""Renders the HTML in outputs of a notebook; a worker of the sandbox."""

import json
from typing import Any

from hga_chat.documents.html.render import render


def extract(data: bytes) -> dict[str, Any]:
    """Return ``{"texts": [text of each]}`` for a JSON list of HTML fragments."""
    texts = []
    for fragment in json.loads(data):
        page = render(fragment, keep_lines=True, drop_navigation=False)
        texts.append("\n".join(page.lines))
    return {"texts": texts}

"""What a new session is called."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from hga_chat.display import displayable
from hga_chat.documents import Document
from hga_chat.documents.types import STANDARD_INPUT

_MOST_CHARS = 60
_GO_MODULE = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_VERSION = re.compile(r"v\d+")


def title_of(paths: Sequence[str], documents: Sequence[Document]) -> str:
    """Return a title for people: that of a book or page, a repository's name, or the path's.

    Args:
        paths: Where the documents come from, resolved.
        documents: The documents, in order.
    """
    if len(paths) > 1:
        return f"{_short(_name(paths[0]))} and {len(paths) - 1} more"
    if Path(paths[0]).is_dir():
        own = _project_name(documents)
    else:
        own = documents[0].title if documents else ""
    return _short(own or _name(paths[0]))


def _name(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else Path(path).name or path


def _short(title: str) -> str:
    title = " ".join(displayable(title).split())
    return title if len(title) <= _MOST_CHARS else f"{title[: _MOST_CHARS - 1].rstrip()}…"


def _project_name(documents: Sequence[Document]) -> str:
    """Return the name in the first manifest at the root of a folder that states one."""
    for document in documents:
        if document.path in _MANIFESTS:
            text = "".join(section.text for section in document.sections)
            try:
                name = _MANIFESTS[document.path](text)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue  # not a manifest, or one without a name
            if isinstance(name, str) and name.strip():
                return name
    return ""


def _of_pyproject(text: str) -> object:
    return tomllib.loads(text)["project"]["name"]


def _of_cargo(text: str) -> object:
    return tomllib.loads(text)["package"]["name"]


def _of_package_json(text: str) -> object:
    return json.loads(text)["name"]


def _of_go_module(text: str) -> object:
    found = _GO_MODULE.search(text)
    parts = found[1].split("/") if found else [""]
    return parts[-2] if _VERSION.fullmatch(parts[-1]) and len(parts) > 1 else parts[-1]


_MANIFESTS = {
    "pyproject.toml": _of_pyproject,
    "Cargo.toml": _of_cargo,
    "package.json": _of_package_json,
    "go.mod": _of_go_module,
}

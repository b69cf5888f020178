"""Load the documents of public bug reports and print a table of what is read right.

``tests/data/faults/cases.json`` says what each must give, as other programs or the specifications
have it. The exit code is 1 if any is wrong.

    python -m tools.measure.public_faults
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hga_chat.documents import Document, DocumentError, load_documents
from hga_chat.output import table

DATA = Path(__file__).parents[2] / "tests" / "data"
CASES = DATA / "faults" / "cases.json"


@dataclass(frozen=True)
class Case:
    """The documents of one report, and what they must give; texts may differ in their blanks."""

    case: str
    kind: str
    source: str
    says: dict[str, list[str | list[str]]]
    """By path, what each document says, or one of several."""
    says_not: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    """By path, the line of words in it."""
    tree: dict[str, str | list[str]] = field(default_factory=dict)
    """A repository with these files: text, or the path of a document; else paths are documents."""
    tracked: list[str] = field(default_factory=list)
    not_loaded: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """Return all cases."""
    entries: list[dict[str, Any]] = json.loads(CASES.read_text("utf-8"))
    return [Case(**entry) for entry in entries]


def wrong(case: Case) -> list[str]:
    """Return in a line each what is wrong; nothing if the documents are read right."""
    try:
        found = _load(case)
    except Exception as error:  # noqa: BLE001 - whatever it is, the case is wrong
        return [f"{type(error).__name__}: {error}"]
    faults = [f"{path} is loaded" for path in case.not_loaded if path in found]
    for path, texts in case.says.items():
        if path not in found:
            faults.append(f"{path} is not loaded")
            continue
        said = _plain(_text(found[path]) + "\n" + "\n".join(found[path].left_out))
        for text in texts:
            choices = [text] if isinstance(text, str) else text
            if not any(_plain(choice) in said for choice in choices):
                faults.append(f"{path} does not say {choices[0]!r}")
        faults += (f"{path} says {text!r}" for text in case.says_not.get(path, ()) if text in said)
        faults += (
            f"{path}: {words!r} is in line {line}, not {right}"
            for words, right in case.lines.get(path, {}).items()
            if (line := _line(found[path], words)) != right
        )
    return faults


def _load(case: Case) -> dict[str, Document]:
    """Return the documents of a case by path."""
    if not case.tree:
        found = {}
        for path in case.says:
            try:
                found[path] = load_documents([str(DATA / path)]).documents[0]
            except DocumentError:
                continue
        return found
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "-C", name, "init", "-q"], check=True)
        for path, content in case.tree.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else _content(*content)
            file.write_bytes(data)
        if case.tracked:
            subprocess.run(["git", "-C", name, "add", "-f", *case.tracked], check=True)
        return {document.path: document for document in load_documents([name]).documents}


def _content(path: str) -> bytes:
    return (DATA / path).read_bytes()


def _text(document: Document) -> str:
    return "".join(section.text for section in document.sections)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _line(document: Document, words: str) -> int | None:
    """Return the line of the first of ``words`` in a document."""
    for section in document.sections:
        if words in section.text:
            return section.line_at(section.text.index(words))
    return None


def main() -> None:
    """Check all cases."""
    rows, failed = [], 0
    for case in cases():
        faults = wrong(case)
        failed += bool(faults)
        rows.append((case.case, case.kind, case.source, "; ".join(faults) or "right"))
    print(table(("case", "kind", "source", "read"), rows))
    print(f"\n{len(rows) - failed} of {len(rows)} right")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

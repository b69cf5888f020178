"""Hold the words found in PDFs against those that poppler's ``pdftotext`` finds, page by page.

A page is right if at least 98% of pdftotext's words are found in it: in any order, in the same
order (longest common subsequence), and as neighbours within its lines. The last is what a page has
one right value for: which of two columns, boxes or cells comes first is for each program to say.
Case, hyphens and compatibility forms do not count, numbers stand apart from letters, of Chinese,
Japanese and Korean each character is a word, and the marks of indices and exponents (``x_i``) do
not count. The reader keeps headers and footers once: of a line at an edge that three pages or more
have, digits aside, only the first is wanted, of page numbers none, as they are in the page's label,
and of headers that repeat a title none but the title. Files that are refused although pdftotext
finds words in them are listed.

    python -m tools.measure.pdf_words FOLDER [--worst 20] [--json FILE]
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from hga_chat.documents.pdf import reader
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import ending_children, extract
from hga_chat.documents.types import UnreadableError

ENOUGH = 0.98
_WORD = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|\d+|[^\W\d\u2e80-\u9fff\uac00-\ud7af]+"
)
_BROKEN = re.compile(r"(?<=\w)[-\u2010\u00ad]\s*\n\s*(?=[a-zà-ÿ])")
_SCRIPTS = re.compile(r"[_^](?:\{([^{}]*)\}|(\w?))(?=(\w?))")
_DOTLESS = re.compile("\u0131(?=[\u0300-\u030f])")
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_PAGE_NUMBER = re.compile(r"(?:page )?#(?: ?(?:/|of) ?#)?")
_EDGE_LINES = 3
_MIN_REPEATS = 3
_MIN_TITLE_CHARS = 4
_HYPHENS = re.compile(r"(?<=\w)[-\u2010\u2212\u00ad](?=\w)")


@dataclass(frozen=True)
class PageScore:
    """A page's words: how many pdftotext has, and which share of them was found."""

    file: str
    page: int
    words: int
    any_order: float
    in_order: float
    side_by_side: float


def words_of(text: str) -> list[str]:
    """Return the words of a page, in a form that different programs agree on."""
    text = _DOTLESS.sub("i", text.replace("\u00ad\n", ""))
    text = _SCRIPTS.sub(_plain_script, unicodedata.normalize("NFKC", text))
    return _WORD.findall(_HYPHENS.sub("", _BROKEN.sub("", text)).casefold())


def _plain_script(match: re.Match[str]) -> str:
    """Return an index or exponent without marks, apart from the letter behind it."""
    return (match[1] or match[2] or "") + (" " if match[3] else "")


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence (Hyyrö's bit-parallel algorithm)."""
    places: dict[str, int] = {}
    for at, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << at
    mask = (1 << len(left)) - 1
    row = mask
    for word in right:
        matches = places.get(word, 0) & row
        row = (row + matches | row - matches) & mask
    return len(left) - row.bit_count()


def pages_of_pdftotext(file: Path) -> list[str] | None:
    """Return the text of each page as pdftotext has it; None if it fails."""
    try:
        done = subprocess.run(
            ["pdftotext", "-enc", "UTF-8", str(file), "-"],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    return done.stdout.decode("utf-8", "replace").split("\f")[:-1]


def without_repeated_edges(pages: Sequence[str]) -> list[str]:
    """Return the pages without the headers and footers that an earlier page has."""
    forms = [
        [_DIGITS.sub("#", line.strip().casefold()) for line in page.split("\n")] for page in pages
    ]
    edges = [
        set(filled[:_EDGE_LINES] + filled[-_EDGE_LINES:])
        for lines in forms
        for filled in [[at for at, line in enumerate(lines) if line]]
    ]
    repeats = Counter(
        form
        for lines, at_edge in zip(forms, edges, strict=True)
        for form in {lines[at] for at in at_edge}
    )
    seen: set[str] = set()
    titles: Counter[str] = Counter()
    kept = []
    for page, lines, at_edge in zip(pages, forms, edges, strict=True):
        letters = [_NOT_LETTERS.sub("", line) for line in lines]
        titles.update(letters)
        gone = {
            at
            for at in at_edge
            if (
                repeats[lines[at]] >= _MIN_REPEATS
                and (lines[at] in seen or _PAGE_NUMBER.fullmatch(lines[at]))
            )
            or (len(letters[at]) >= _MIN_TITLE_CHARS and titles[letters[at]] > 1)
        }
        seen.update(lines[at] for at in at_edge)
        kept.append("\n".join(t for at, t in enumerate(page.split("\n")) if at not in gone))
    return kept


def neighbours(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """Count the pairs of words that follow each other within a line."""
    return Counter(pair for line in lines for pair in pairwise(words_of(line)))


def score(file: str, expected: Sequence[str], found: Sequence[str]) -> list[PageScore]:
    """Score the pages of a file that have words."""
    scores = []
    for number, text in enumerate(without_repeated_edges(expected)):
        wanted = words_of(text)
        if not wanted:
            continue
        page = found[number] if number < len(found) else ""
        have = words_of(page)
        shared = (Counter(wanted) & Counter(have)).total() / len(wanted)
        ordered = common_subsequence(wanted, have) / len(wanted)
        pairs = neighbours(text.split("\n"))
        # What continues on the next line is side by side as well.
        beside = (pairs & Counter(pairwise(have))).total() / pairs.total() if pairs else 1.0
        scores.append(PageScore(file, number + 1, len(wanted), shared, ordered, beside))
    return scores


def main() -> None:
    """Score every PDF below a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worst", type=int, default=0, help="pages to list, the worst first")
    parser.add_argument("--json", type=Path, help="write every page's score to this file")
    arguments = parser.parse_args()
    if shutil.which("pdftotext") is None:
        sys.exit("pdftotext is missing; it is in the package poppler-utils")
    scores: list[PageScore] = []
    refused: Counter[str] = Counter()
    lost: list[str] = []
    times: list[tuple[float, str]] = []
    with ending_children():
        for file in sorted(arguments.folder.rglob("*.pdf")):
            name = str(file.relative_to(arguments.folder))
            expected = pages_of_pdftotext(file)
            started = time.monotonic()
            try:
                answer = extract(
                    reader._WORKER, file.read_bytes(), "PDF", Limits(seconds=reader.TIMEOUT_S)
                )
                found = [page["text"] for page in answer["pages"]]
            except UnreadableError as error:
                found = []
                refused[" ".join(str(error).split()[:6])] += 1
                if expected and any(map(words_of, expected)):
                    lost.append(f"{name}: {error}")
            times.append((time.monotonic() - started, name))
            scores += score(name, expected or [], found)
    report(scores, refused, lost, times, arguments.worst)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(score) for score in scores], indent=0))


def report(
    scores: list[PageScore],
    refused: Counter[str],
    lost: list[str],
    times: list[tuple[float, str]],
    worst: int,
) -> None:
    """Print the shares, the refusals and the slowest files."""
    if not scores:
        sys.exit("no page with words")
    any_order = sum(score.any_order >= ENOUGH for score in scores)
    in_order = sum(score.in_order >= ENOUGH for score in scores)
    side_by_side = sum(score.side_by_side >= ENOUGH for score in scores)
    words = sum(score.words for score in scores)
    print(f"{len(times):,} files, {len(scores):,} pages with {words:,} words")
    print(f"at least 98% of the words in any order: {any_order / len(scores):.1%} of the pages")
    print(f"in the same order: {in_order / len(scores):.1%} of the pages")
    print(f"side by side within its lines: {side_by_side / len(scores):.1%} of the pages")
    found = sum(score.words * score.any_order for score in scores)
    print(f"words found: {found / words:.2%}")
    print(
        "slowest: " + ", ".join(f"{name} {took:.1f} s" for took, name in sorted(times)[-5:][::-1])
    )
    print(f"refused: {refused.total()}, of which {len(lost)} have words for pdftotext")
    for line in lost:
        print(f"  {line}")
    for score in sorted(scores, key=lambda score: score.any_order)[:worst]:
        print(f"  {score.any_order:.0%} of {score.words} words: {score.file}, page {score.page}")


if __name__ == "__main__":
    main()

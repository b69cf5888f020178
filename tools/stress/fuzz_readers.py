"""Feed damaged and random input to every reader and check what comes back.

Whatever it is given, a reader returns sections or refuses with a reason, within its limits. No text
shown of either may control the terminal, and plain text comes back whole. Inputs that break a rule
are saved in a folder that is named at the end, and the exit code is 1.

    python -m tools.stress.fuzz_readers [--inputs 20000] [--seed 0] [--reader NAME]
"""

import argparse
import atexit
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random

from lxml import etree

from hga_chat.display import displayable
from hga_chat.documents.formats import (
    HTML,
    MARKDOWN,
    NOTEBOOK,
    PDF,
    TABLE,
    TEXT,
    ZIPPED,
    Format,
    format_of,
)
from hga_chat.documents.html import reader as html_reader
from hga_chat.documents.pdf import reader as pdf_reader
from hga_chat.documents.plain.decode import PROBE_BYTES, decode_lines, decode_text
from hga_chat.documents.plain.terminal import as_shown
from hga_chat.documents.plain.valid_text import valid_text
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import ending_children
from hga_chat.documents.tree.wildmatch import Pattern, patterns_of, verdict
from hga_chat.documents.types import LoadedFile, UnreadableError
from hga_chat.documents.unsupported import unsupported_format
from hga_chat.documents.zipped import reader as packed_reader

DATA = Path(__file__).parents[2] / "tests" / "data"


def load_patterns(_path: str, data: bytes) -> LoadedFile:
    """Compile an ignore file; it has no sections."""
    patterns_of(data)
    return LoadedFile(())


IGNORE = Format("ignore", load_patterns, 0)
READERS = {kind.name: kind for kind in (TEXT, MARKDOWN, TABLE, NOTEBOOK, HTML, ZIPPED, PDF, IGNORE)}
SEEDS = {
    "text": ("text/*", "other/*.txt", "*.txt", "html/*", "faults/*.log"),
    "markdown": ("*.md", "other/hostile.txt"),
    "table": ("table/*",),
    "notebook": ("notebook/*", "faults/*.ipynb"),
    "html": ("html/*",),
    "zip": ("epub/*", "docx/*", "other/*.xlsx", "other/*.zip"),
    "pdf": ("*.pdf", "pdf/*.pdf"),
    "ignore": ("*.txt",),
}
SECONDS = 10.0
# What the corpus has of these takes long to read and is no different after it was changed.
MAX_SEED_BYTES = 40_000

_LIMIT = re.compile(r"parsing took more than|too much memory|more text than can be loaded")
_DEATH = re.compile(r"the parser exited with")
# Whatever pypdf raises on a damaged file is a reason; a mistake of our own is none.
_MISTAKE = re.compile(r"damaged (?:HTML|ZIP archive): [A-Z]\w*: ")
_PDF_TOKEN = re.compile(rb"[-+]?\d+\.?\d*|/\w+|<[0-9A-Fa-f]*>|\([^()]*\)|\b[A-Za-z]{1,3}\b|[\[\]]")
_PDF_VALUES = (
    *(b"0", b"-1", b"1e9", b"99999999999999999999", b"0.0000001", b"null", b"true", b"[", b"]"),
    *(b"/Identity-V", b"/H", b"/Symbol", b"/ActualText", b"/OC", b"<>", b"<FEFF05D0>", b"()"),
    *(b"BDC", b"EMC", b"Do", b"q", b"Q", b"Ts", b"Tz", b"TJ", b"re", b"f", b"1 0 R", b"100 0 R"),
)

_TAG = re.compile(rb"</?[A-Za-z][^<>]*>")
_HTML_TAGS = (
    *(b"<sup>", b"</sup>", b"<sub>", b"<ruby>", b"<rt>", b"<s>", b"<q>", b"<br>", b"<pre>\n"),
    *(b"<table>", b"</table>", b"<tr>", b"<td rowspan=65534>", b"<td colspan=1000>", b"<tfoot>"),
    *(b"<ol type=i start=-9>", b"<ol reversed>", b"</ol>", b"<li value=99999>", b"<ul>", b"<dl>"),
    *(b"<math>", b"</math>", b"<mfrac>", b"<msup>", b"<munderover>", b"<mtable>", b"<semantics>"),
    *(
        b"<span class=katex-html>",
        b"<span class=msupsub>",
        b"<span class=mfrac>",
        b"<span class=sqrt>",
    ),
    *(b"<span class=vlist>", b"<span style='top:-1.2em'>", b"<span class='mop op-limits'>"),
    *(b"<span class=mtable>", b"<span class='delimsizing mult'><svg width=0.667em>"),
    *(b"<annotation encoding=TeX>", b"<mmultiscripts><mprescripts/>", b"<math alttext='\\x'>"),
    *(b"<svg>", b"</svg>", b"<text>", b"<title>", b"<foreignObject>", b"<![CDATA[", b"]]>"),
    *(b"<select multiple>", b"<option>", b"<input type=checkbox>", b"<textarea>", b"<button>"),
    *(b"<template>", b"<template shadowrootmode=open>", b"<slot>", b"<iframe srcdoc='<p>a'>"),
    *(b"<p style='display:none'>", b"<p style='visibility:visible'>", b"<p style='(;\"'>"),
    *(
        b"<meta charset=shift_jis>",
        b"<meta charset=hz>",
        b'<?xml version="1.0"?>',
        b"&nbsp;",
        b"\0",
    ),
    b"<html xmlns='http://www.w3.org/1999/xhtml'>",
)
_XML_TAGS = (
    *(b"<w:r>", b"</w:r>", b"<w:p>", b"<w:tbl>", b"<w:tr>", b"<w:tc>", b"<w:vMerge/>", b"<w:t>"),
    *(b'<w:gridSpan w:val="999"/>', b'<w:vertAlign w:val="superscript"/>', b"<w:vanish/>"),
    *(b'<w:rFonts w:ascii="Symbol"/>', b'<w:sym w:font="Wingdings" w:char="FFFFF"/>', b"<w:del>"),
    *(b'<w:fldChar w:fldCharType="begin"/>', b'<w:fldChar w:fldCharType="end"/>', b"<w:ruby>"),
    *(b"<w:instrText>EQ \\f(1,\\r(2))", b"<w:instrText>SYMBOL 9999", b'<w:numId w:val="1"/>'),
    *(b"<m:oMath>", b"<m:f>", b"<m:num>", b"<m:den>", b"<m:sSup>", b"<m:e>", b"<m:nary>", b"<m:d>"),
    *(
        b'<itemref idref="c1"/>',
        b'<item href="%2e%2e/x"/>',
        b"<spine>",
        b"<manifest>",
        b"&",
        b"&x;",
    ),
    *(
        b"<navPoint>",
        b"<content src='http://[x'/>",
        b"<nav>",
        b"<li>",
        b"<a href='#'>",
        b"\xef\xbb\xbf",
    ),
)


def remark(data: bytes, random: Random, _seeds: list[bytes], tags: Sequence[bytes]) -> bytes:
    """Replace, remove and insert tags."""
    found = list(_TAG.finditer(data))
    chosen = random.sample(found, min(len(found), random.choice((1, 2, 4, 16))))
    for match in sorted(chosen, key=lambda match: -match.start()):
        kind = random.random()
        new = random.choice(tags) if kind < 0.6 else random.choice(found)[0] if kind < 0.8 else b""
        start = match.start() if random.random() < 0.5 else match.end()
        data = data[:start] + new + data[match.end() :]
    return data


def remark_html(data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    """Replace, remove and insert tags of HTML."""
    return remark(data, random, seeds, _HTML_TAGS)


def flip(data: bytearray, random: Random, _seeds: list[bytes]) -> bytes:
    """Change some bits."""
    for _ in range(random.choice((1, 2, 8, 64))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def truncate(data: bytearray, random: Random, _: list[bytes]) -> bytes:
    """Cut off the end, or the beginning."""
    at = random.randrange(len(data) + 1)
    return bytes(data[:at] if random.random() < 0.7 else data[at:])


def splice(data: bytearray, random: Random, seeds: list[bytes]) -> bytes:
    """Put the beginning of one file before the end of another."""
    other = random.choice(seeds)
    return (
        bytes(data[: random.randrange(len(data) + 1)]) + other[random.randrange(len(other) + 1) :]
    )


def duplicate(data: bytearray, random: Random, _: list[bytes]) -> bytes:
    """Repeat a part."""
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 8, 100, 1000)))
    return bytes(data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:])


def noise(data: bytearray, random: Random, _: list[bytes]) -> bytes:
    """Write random bytes somewhere, or everywhere."""
    if random.random() < 0.3:
        return random.randbytes(random.choice((1, 4, 100, 5000)))
    start = random.randrange(len(data) + 1)
    return bytes(data[:start]) + random.randbytes(random.choice((1, 4, 40))) + bytes(data[start:])


MUTATIONS: tuple[Callable[[bytearray, Random, list[bytes]], bytes], ...] = (
    *(flip, truncate, splice, duplicate, noise),
)


def mutate(data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    """Return ``data`` after one to three changes."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = random.choice(MUTATIONS)(bytearray(data), random, seeds)
    return data


def repack(data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    """Change the members of an archive, or their names, and pack them again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError):
        return mutate(data, random, seeds)
    texts = [text for _, text in members]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            chance = random.random()
            if chance < 0.05:
                name = random.choice(("../" + name, "/" + name, name[:-1], "\x1b[31m" + name))
            changed = mutate(text, random, texts) if chance < 0.2 else text
            if random.random() < 0.4:
                tags = _HTML_TAGS if name.endswith("html") else _XML_TAGS
                changed = remark(changed, random, texts, tags)
                if random.random() < 0.7:
                    changed = well_formed(changed)
            if chance < 0.98:
                archive.writestr(zipfile.ZipInfo(name), changed[:MAX_SEED_BYTES])
    return buffer.getvalue()


def well_formed(data: bytes) -> bytes:
    """Return XML with its mistakes repaired, so that more than its parser is reached."""
    try:
        root = etree.fromstring(data, etree.XMLParser(recover=True, resolve_entities=False))
    except (etree.XMLSyntaxError, ValueError):
        return data
    return data if root is None else etree.tostring(root)


# What programs write into logs.
_LOG_PIECES = (
    *(b"\r", b"\r\r\n", b"\r 10%|#    | 1/10\r100%|#####| 10/10", b"\x08", b"a\x08a", b"_\x08b"),
    *(b"\x1b[1;31m", b"\x1b[0m", b"\x1b[K", b"\x1b[2K", b"\x1b[1K", b"\x1b[999999999C", b"\x1b[5D"),
    *(b"\x1b[G", b"\x1b]0;t\x07", b"\x1b]8;;x\x1b\\", b"\x1b(B", b"\x1b", b"\0", b"\0" * 40),
    *(b"e\0r\0r\0o\0r\0 \0n\0o\0 \0s\0p\0a\0c\0e\0", b"\0e\0r\0r\0o\0r\0 \0n\0o\0t"),
    *(b"\x0c", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1c", b"\xff", b"\xed\xa0\xbd", b"\n"),
)


def relog(data: bytes, random: Random, _seeds: list[bytes]) -> bytes:
    """Insert what programs write for a terminal, and stray bytes."""
    for _ in range(random.choice((1, 3, 10, 40))):
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.choice(_LOG_PIECES) + data[at:]
    return data


_GLOB_PARTS = (
    *(b"a", b"b", b"A", b"1", b".", b"\xc3\xa9", b"#", b"!", b" ", b"\t", b"\r", b"-", b"^", b"]"),
    *(b"\\", b"[", b"?", b"/", b"*", b"**", b"**/", b"/**", b"*a", b"[a-b]", b"[!a]", b"[]a]"),
    *(
        b"[[:alpha:]]",
        b"[[:odd:]]",
        b"[:",
        b"[a",
        b"\\ ",
        b"\n",
        b"\n",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
    ),
)
_NAMES = (
    b"a",
    b"b",
    b"ab",
    b"a b",
    b"a ",
    b"#",
    b"!",
    b"]",
    b"\\",
    b"1",
    b"\xc3\xa9",
    b"\xff",
    b"a.b",
)


def reglob(_data: bytes, random: Random, _seeds: list[bytes]) -> bytes:
    """Write the lines of an ignore file."""
    return b"".join(random.choices(_GLOB_PARTS, k=random.randint(1, 20)))


def reshape(data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    """Replace values in a notebook's JSON."""
    try:
        document = json.loads(data)
    except ValueError:
        return mutate(data, random, seeds)
    values = (
        "null",
        "0",
        "-1.5",
        '"x"',
        '"\\u001b[31m"',
        '"\\n"',
        "[]",
        '["a", 1]',
        '{"text": [1]}',
        '"\\ud83d"',
        '"\\u0000"',
        '"\\r 10%\\r 20%\\u001b[K"',
        '{"text/html": "<table><tr><td rowspan=99>x", "text/plain": "<Object>"}',
        '{"text/markdown": ["**x**"], "image/png": "iV"}',
        '{"application/json": {"a": [1, "\\ud83d"]}}',
        '{"application/vnd.plotly.v1+json": {}}',
        '{"output_type": "pyout", "html": "<b>x", "png": "iV", "text": ["<x>"]}',
        '{"output_type": "stream", "name": null, "text": ["\\rx", "\\ry"]}',
        '{"output_type": "error", "ename": "E", "evalue": [], "traceback": "\\u001b[31mE"}',
        '{"cell_type": "heading", "level": 99, "source": "x"}',
    )
    for _ in range(random.choice((1, 2, 5))):
        place: object = document
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = random.choice(keys)
            inner = place[key]
            if random.random() < 0.2 or not isinstance(inner, dict | list):
                place[key] = json.loads(random.choice(values))
                break
            place = inner
    return json.dumps(document, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def retoken(data: bytes, random: Random, _seeds: list[bytes]) -> bytes:
    """Replace numbers, names, strings and operators of a PDF by others, odd ones or the file's."""
    tokens = list(_PDF_TOKEN.finditer(data))
    for match in sorted(
        random.sample(tokens, min(len(tokens), random.choice((1, 2, 4, 16)))),
        key=lambda match: -match.start(),
    ):
        new = random.choice(tokens)[0] if random.random() < 0.5 else random.choice(_PDF_VALUES)
        data = data[: match.start()] + new + data[match.end() :]
    return data


# Changes that know the format, so that more than its outside is reached.
STRUCTURAL = {
    "zip": repack,
    "notebook": reshape,
    "pdf": retoken,
    "html": remark_html,
    "text": relog,
    "ignore": reglob,
}


def inputs(name: str, count: int, random: Random) -> Iterator[bytes]:
    """Yield the corpus of a reader as it is, then ``count`` changed files."""
    files = sorted({file for pattern in SEEDS[name] for file in DATA.glob(pattern)})
    seeds = [file.read_bytes() for file in files if file.is_file()]
    yield from seeds
    seeds = [seed for seed in seeds if len(seed) <= MAX_SEED_BYTES]
    # What is whole goes through more of a reader than what is damaged already.
    whole = [seed for seed in seeds if can_be_loaded(name, seed)]
    for _ in range(count):
        change = STRUCTURAL.get(name, mutate) if random.random() < 0.7 else mutate
        yield change(random.choice(whole if random.random() < 0.8 else seeds), random, seeds)


def can_be_loaded(name: str, data: bytes) -> bool:
    """Return whether a reader accepts ``data``."""
    try:
        READERS[name].load("a", data)
    except UnreadableError:
        return False
    return True


def check(name: str, data: bytes) -> str:
    """Read ``data`` and return how that ended, in a word.

    Raises:
        AssertionError: A rule is broken.
    """
    path = f"a\x1b[31m.{name}"
    foreign = unsupported_format(path, data[:PROBE_BYTES])
    assert foreign is None or is_safe(foreign)
    format_of(path, data[:PROBE_BYTES])
    started = time.monotonic()
    try:
        loaded = READERS[name].load(path, data)
    except UnreadableError as error:
        reason = str(error)
        assert is_safe(reason), f"unsafe reason {reason!r}"
        assert not _DEATH.search(reason), reason
        assert not _MISTAKE.search(reason), reason
        ended = "limited" if _LIMIT.search(reason) else "refused"
    else:
        check_loaded(name, data, loaded)
        ended = "read"
    took = time.monotonic() - started
    assert took < SECONDS + 5, f"took {took:.1f} s"
    return ended


def check_loaded(name: str, data: bytes, loaded: LoadedFile) -> None:
    """Check sections and notes against the rules."""
    for note in (*loaded.notes, *loaded.left_out):
        assert is_safe(note), f"unsafe note {note!r}"
    for section in loaded.sections:
        assert is_safe(section.label), f"unsafe label {section.label!r}"
        assert section.label, "no label"
        shown = displayable(section.text)
        assert displayable(shown) == shown
        assert "\x1b" not in shown
        if section.start_line is not None:
            assert 1 <= section.start_line <= (section.end_line or 0), "lines run backwards"
        if section.lines is not None:
            assert len(section.lines) == section.text.count("\n"), "lines are not counted right"
    text = "".join(section.text for section in loaded.sections)
    if name == "markdown" or (name == "table" and not loaded.notes):
        assert text == decode_text(data), "text is lost"
    if name == "text":
        assert text == as_shown(decode_lines(data))[0], "text is lost"
        assert text.count("\n") == decode_text(data).count("\n"), "lines are lost"
        assert "\r" not in text
    if name == "notebook":
        assert valid_text(text) == text, "text that cannot be encoded"
    if name == "ignore":
        check_patterns(data)


def check_patterns(data: bytes) -> None:
    """Compare an ignore file with what git says, and with the time that it may take."""
    patterns = patterns_of(data)
    for path in (b"a" * 255, b"a/" * 500 + b"b"):
        for pattern in patterns:
            pattern.matches(path, path.rpartition(b"/")[2], is_folder=False)
    choose = Random(data)
    paths = {b"/".join(choose.choices(_NAMES, k=choose.randint(1, 3))) for _ in range(8)}
    repository = _repository()
    (repository / ".gitignore").write_bytes(data)
    found = {path for path in paths if is_ignored(patterns, path)}
    assert found == ignored_by_git(repository, sorted(paths)), "not as git has it"


def ignored_by_git(repository: Path, paths: Sequence[bytes]) -> set[bytes]:
    """Return which of these paths git ignores in a repository, whether it tracks them or not."""
    command = ("check-ignore", "-z", "-v", "--stdin", "--no-index")
    ran = subprocess.run(
        ["git", "-C", str(repository), *command],
        input=b"\0".join(paths) + b"\0",
        capture_output=True,
        check=False,
    )
    fields = ran.stdout.split(b"\0")
    matches = zip(fields[2::4], fields[3::4], strict=False)
    return {path for pattern, path in matches if not pattern.startswith(b"!")}


def is_ignored(patterns: Sequence[Pattern], path: bytes) -> bool:
    """Return whether one ignore file leaves out a path, or a folder that it is in."""
    names = path.split(b"/")
    return any(
        verdict(patterns, b"/".join(names[:depth]), is_folder=depth < len(names))
        for depth in range(1, len(names) + 1)
    )


@cache
def _repository() -> Path:
    """Return an empty repository, removed at the end."""
    folder = tempfile.mkdtemp(prefix="fuzz_ignore_")
    atexit.register(shutil.rmtree, folder)
    subprocess.run(["git", "init", "-q", folder], check=True)
    return Path(folder)


def is_safe(words: str) -> bool:
    """Return whether ``words``, made safe for a terminal, are one line without control codes."""
    shown = displayable(words)
    return "\n" not in words and displayable(shown) == shown and "\x1b" not in shown


def fuzz(name: str, count: int, seed: int, folder: Path) -> int:
    """Fuzz one reader, print the outcomes, and return how many inputs broke a rule."""
    random = Random(f"{seed} {name}")
    ends: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    slowest, started = 0.0, time.monotonic()
    with ending_children():
        for number, data in enumerate(inputs(name, count, random)):
            begun = time.monotonic()
            try:
                ends[check(name, data)] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
                ends["failed"] += 1
                cause = f"{type(error).__name__}: {error}"[:150]
                if not causes[cause]:
                    (folder / f"{name}_{number}").write_bytes(data)
                causes[cause] += 1
            slowest = max(slowest, time.monotonic() - begun)
    took = time.monotonic() - started
    result = ", ".join(f"{ends[end]:,} {end}" for end in ("read", "refused", "limited", "failed"))
    print(f"{name}: {result}; {took:.0f} s, slowest {slowest:.1f} s", flush=True)
    for cause, times in causes.most_common(20):
        print(f"  {times} x {cause!r}", flush=True)
    return ends["failed"]


def main() -> None:
    """Fuzz the readers that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, action="append")
    arguments = parser.parse_args()
    html_reader.LIMITS = packed_reader.LIMITS = Limits(seconds=SECONDS)
    pdf_reader.TIMEOUT_S = SECONDS
    folder = Path(tempfile.mkdtemp(prefix="fuzz_readers_"))
    names = arguments.reader or list(READERS)
    failed = sum(fuzz(name, arguments.inputs, arguments.seed, folder) for name in names)
    if failed:
        sys.exit(f"{failed} inputs broke a rule; one of each kind is in {folder}")
    folder.rmdir()


if __name__ == "__main__":
    main()

"""Extracts the text of an EPUB book: its documents in order, under its table of contents.

Formats: EPUB 2 (OPF 2.0, NCX) and EPUB 3 (OPF 3, navigation document).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from hga_chat.documents.html.decode import decode_html
from hga_chat.documents.html.render import render
from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.plain.xml_lookup import local
from hga_chat.documents.types import UnreadableError
from hga_chat.documents.zipped.members import Members

CONTAINER = "META-INF/container.xml"
MAX_DOCUMENTS = 5_000
_MAX_TITLES = 20_000
_MAX_DEPTH = 20
_MAX_NOTES = 5
_MAX_FALLBACKS = 10
_NEAR_LINES = 4
_PACKAGE_TYPE = "application/oebps-package+xml"
_TEXT_TYPES = frozenset(
    {
        "application/x-dtbook+xml",
        "application/xhtml+xml",
        "text/html",
        "text/x-oeb1-document",
    }
)
_PAGE_TYPES = _TEXT_TYPES | {"image/svg+xml"}
# How a page begins, whatever its media type.
_PAGE = re.compile(rb"<(?:html|body|svg|dtbook)\b", re.IGNORECASE)
_HEAD_BYTES = 2048
_NCX_TYPE = "application/x-dtbncx+xml"
_ENCRYPTION = "META-INF/encryption.xml"
# Obfuscated fonts do not make the text unreadable.
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


@dataclass(frozen=True)
class _Title:
    """An entry of the table of contents: its target, and its depth from 1."""

    member: str
    anchor: str
    depth: int
    text: str


def extract_epub(members: Members) -> tuple[ExtractedText, list[str]]:
    """Return the text of a book, and notes on the documents that could not be loaded.

    Raises:
        UnreadableError: The book is encrypted or damaged.
    """
    encrypted = _encrypted(members)
    package_name = _package_name(members)
    package, note = members.parse_damaged_xml(package_name)
    book = _Book(members, package_name, package)
    references = book.references
    if len(references) > MAX_DOCUMENTS:
        raise UnreadableError(f"more than {MAX_DOCUMENTS:,} documents in a book")
    contents: dict[str, list[_Title]] = {}
    for entry in _contents(book):
        contents.setdefault(entry.member, []).append(entry)
    # A document without an entry continues the one before it.
    below = _MAX_DEPTH if contents else 0
    lines: list[str] = []
    headings: list[tuple[int, int, str]] = []
    failures: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for number, reference in enumerate(references, start=1):
        try:
            item = book.item(reference)
            if _is_contents(item):
                continue
            member = book.page(item)
            seen.add(member)
            if member in encrypted:
                raise UnreadableError("encrypted (copy protection)")
            page = render(
                decode_html(members.read(member)), load_sheet=partial(book.style_sheet, member)
            )
        except UnreadableError as error:
            failures.append(f"document {number} of {len(references)}: {error}")
            continue
        offset = len(lines)
        for index, level, heading in _headings(page, contents.get(member, []), below):
            headings.append((index + offset, level, heading))
        lines += [*page.lines, ""]
        left_out.update(page.left_out)
    left_out["documents outside the reading order"] = len(book.other_pages(seen))
    if not lines and encrypted:
        raise UnreadableError("encrypted EPUB (copy protection)")
    notes = [note] if note else []
    if lines and not book.has_order:
        notes.append("no reading order is given; in the order of the list of files")
    notes += failures[:_MAX_NOTES]
    if len(failures) > _MAX_NOTES:
        notes.append(f"{len(failures) - _MAX_NOTES:,} more documents could not be loaded")
    title = next(("".join(e.itertext()) for e in _named(package, "title")), "")
    title = " ".join(title.split())
    return ExtractedText(lines, headings, title=title, left_out=dict(left_out)), notes


class _Book:
    """A package document: what belongs to the book, and in which order."""

    def __init__(self, members: Members, name: str, package: Any) -> None:
        self.members = members
        self.name = name
        self.items = {item.get("id"): item for item in _named(package, "item")}
        self.spine = next(_named(package, "spine"), None)
        self.references = [] if self.spine is None else list(_named(self.spine, "itemref"))
        self.has_order = bool(self.references)
        self._sheets: dict[str, str] = {}
        if not self.has_order:
            pages = (item for item in self.items.values() if _media_type(item) in _PAGE_TYPES)
            self.references = [{"idref": item.get("id")} for item in pages]

    def item(self, reference: Any) -> Any:
        """Return the item of a spine's entry.

        Raises:
            UnreadableError: There is none.
        """
        name = reference.get("idref") or ""
        found = self.items.get(name)
        if found is None:
            names = name.strip().casefold()
            found = next((i for i in self.items.values() if names in _names(i)), None)
        if found is None:
            raise UnreadableError(f"{' '.join(name.split())[:80]} is not in the list of files")
        return found

    def page(self, item: Any) -> str:
        """Return the member with the text of an item, or of one that may stand for it.

        Raises:
            UnreadableError: There is none.
        """
        for candidate in self._fallbacks(item):
            member = self._member(candidate)
            if _media_type(candidate) in _PAGE_TYPES:
                return member
            if member in self.members and _PAGE.search(self.members.read(member)[:_HEAD_BYTES]):
                return member
        raise UnreadableError(f"{_media_type(item) or 'a file without a type'} is not text")

    def style_sheet(self, page: str, reference: str) -> str:
        """Return the style sheet that a page refers to; empty if it cannot be read."""
        member = _resolve(self.members, page, reference)[0]
        if member not in self._sheets:
            try:
                data = self.members.read(member)
            except UnreadableError:
                data = b""
            self._sheets[member] = data.decode("utf-8", "replace")
        return self._sheets[member]

    def other_pages(self, seen: set[str]) -> set[str]:
        """Return the pages that are not among ``seen``, nor the table of contents."""
        pages = (item for item in self.items.values() if not _is_contents(item))
        texts = {
            self._member(i) for i in pages if _media_type(i) in _PAGE_TYPES - {"image/svg+xml"}
        }
        return {member for member in texts if member in self.members} - seen

    def _fallbacks(self, item: Any) -> Sequence[Any]:
        chain = [item]
        while len(chain) < _MAX_FALLBACKS:
            following = self.items.get(chain[-1].get("fallback"))
            if following is None:
                break
            chain.append(following)
        return chain

    def _member(self, item: Any) -> str:
        return _resolve(self.members, self.name, item.get("href") or "")[0]


def _media_type(item: Any) -> str:
    return (item.get("media-type") or "").split(";")[0].strip().lower()


def _names(item: Any) -> set[str]:
    """Return what a careless entry of the spine may call an item."""
    href = unquote(item.get("href") or "").casefold()
    return {(item.get("id") or "").strip().casefold(), href, posixpath.basename(href)} - {""}


def _package_name(members: Members) -> str:
    """Return the name of the package document: the first that the container names and that exists.

    Raises:
        UnreadableError: There is none.
    """
    named = []
    container = members.find(CONTAINER)
    if container is not None:
        root, _ = members.parse_damaged_xml(container)
        files = sorted(
            _named(root, "rootfile"), key=lambda file: _media_type(file) != _PACKAGE_TYPE
        )
        named = [file.get("full-path") for file in files if file.get("full-path")]
    for name in named:
        found = members.find(name)
        if found is not None:
            return found
    other = next((name for name in members.names if name.lower().endswith(".opf")), None)
    if other is not None:
        return other
    if named:
        raise UnreadableError(f"damaged: {' '.join(named[0].split())[-80:]} is missing")
    raise UnreadableError("damaged EPUB: container.xml names no package document")


def _named(root: Any, name: str) -> Any:
    """Iterate over the elements of this name in any namespace."""
    return root.iter(f"{{*}}{name}")


def _encrypted(members: Members) -> set[str]:
    """Return the members that are encrypted, apart from fonts.

    Raises:
        UnreadableError: It is not said which.
    """
    name = members.find(_ENCRYPTION)
    if name is None:
        return set()
    encrypted: set[str] = set()
    for method in _named(members.parse_damaged_xml(name)[0], "EncryptionMethod"):
        if method.get("Algorithm") in _FONT_ALGORITHMS:
            continue
        parent = method.getparent()
        found = [] if parent is None else _named(parent, "CipherReference")
        uris = [e.get("URI") for e in found if e.get("URI")]
        if not uris:
            raise UnreadableError("encrypted EPUB (copy protection)")
        encrypted.update(_resolve(members, "", uri)[0] for uri in uris)
    return encrypted


def _resolve(members: Members, base: str, reference: str) -> tuple[str, str]:
    """Return the member and anchor that a reference in the member ``base`` points to.

    The member may be missing.
    """
    try:
        parts = urlsplit(reference.strip())
    except ValueError:
        return "", ""
    if not parts.path:
        return base, unquote(parts.fragment)
    folder = posixpath.dirname(base)
    plain = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
    given = posixpath.normpath(posixpath.join(folder, parts.path))
    return members.find(plain) or members.find(given) or plain, unquote(parts.fragment)


def _is_contents(item: Any) -> bool:
    return "nav" in (item.get("properties") or "").split()


def _contents(book: _Book) -> list[_Title]:
    """Return the table of contents; empty if there is none or it is damaged."""
    items = book.items
    navigation = next((item for item in items.values() if _is_contents(item)), None)
    toc = items.get(book.spine.get("toc")) if book.spine is not None else None
    if toc is None:
        toc = next((i for i in items.values() if _media_type(i) == _NCX_TYPE), None)
    for item, titles_of in ((navigation, _titles_of_navigation), (toc, _titles_of_ncx)):
        if item is None:
            continue
        name = _resolve(book.members, book.name, item.get("href") or "")[0]
        try:
            entries = titles_of(book.members.parse_damaged_xml(name)[0])
        except UnreadableError:
            continue
        titles = []
        for reference, depth, text in entries[:_MAX_TITLES]:
            place = _resolve(book.members, name, reference) if reference else ("", "")
            words = " ".join(text.split())
            if words:
                titles.append(_Title(*place, min(depth, _MAX_DEPTH), words))
        if titles:
            return _placed(titles)
    return []


def _placed(titles: list[_Title]) -> list[_Title]:
    """Point titles without a target, such as those of parts, to the first title below them."""
    placed: list[_Title] = []
    for title in reversed(titles):
        after = placed[-1] if placed else None
        if not title.member and after is not None and after.depth > title.depth:
            title = replace(title, member=after.member, anchor=after.anchor)
        placed.append(title)
    return placed[::-1]


# An entry of a table of contents: its reference, its depth from 1, and its text.
_Entry = tuple[str | None, int, str]


def _titles_of_navigation(root: Any) -> list[_Entry]:
    navs = list(_named(root, "nav"))
    nav = next((n for n in navs if "toc" in _types(n)), navs[0] if navs else None)
    if nav is None:
        return []
    titles = []
    for item in _named(nav, "li"):
        depth = sum(1 for e in item.iterancestors() if e.tag == item.getparent().tag)
        label = next((e for e in item if local(e) in {"a", "span"}), None)
        if label is not None:
            titles.append((label.get("href"), depth, "".join(label.itertext())))
    return titles


def _types(nav: Any) -> list[str]:
    return " ".join(value for key, value in nav.attrib.items() if key.endswith("type")).split()


def _titles_of_ncx(root: Any) -> list[_Entry]:
    titles = []
    for point in _named(root, "navPoint"):
        depth = 1 + sum(1 for e in point.iterancestors() if e.tag == point.tag)
        label = next((e for e in point if local(e) == "navLabel"), None)
        content = next((e for e in point if local(e) == "content"), None)
        if label is not None and content is not None:
            titles.append((content.get("src"), depth, "".join(label.itertext())))
    return titles


def _headings(page: ExtractedText, titles: list[_Title], below: int) -> list[tuple[int, int, str]]:
    """Return the headings of one document: entries of the contents, and its own ``below`` them.

    A heading that repeats an entry, in whole or in part, is dropped.
    """
    own = {index: (level, title) for index, level, title in page.headings}
    found = []
    for title in titles:
        index = page.anchors.get(title.anchor, 0)
        while index + 1 < len(page.lines) and not page.lines[index]:
            index += 1
        same = [
            near
            for near in range(index, index + _NEAR_LINES)
            if near in own and _is_part(own[near][1], title.text)
        ]
        for near in same:
            del own[near]
        found.append((index, title.depth, title.text))
    found += ((index, below + level, title) for index, (level, title) in own.items())
    return sorted(found, key=lambda heading: heading[0])


def _is_part(heading: str, title: str) -> bool:
    heading, title = heading.casefold(), title.casefold()
    return heading in title or title in heading

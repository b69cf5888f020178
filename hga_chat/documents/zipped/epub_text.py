"""Extracts the text of an EPUB book: its documents in order, under its table of contents.

Formats: EPUB 2 (OPF 2.0, NCX) and EPUB 3 (OPF 3, navigation document).
"""

import posixpath
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from hga_chat.documents.html.decode import decode_html
from hga_chat.documents.html.render import render
from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.types import UnreadableError
from hga_chat.documents.zipped.members import Members
from hga_chat.documents.zipped.xml_lookup import local

MAX_DOCUMENTS = 5_000
_MAX_TITLES = 20_000
_MAX_DEPTH = 20
_MAX_NOTES = 5
_NEAR_LINES = 4
_PAGE_TYPES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})
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
    _refuse_encrypted(members)
    container = members.parse_xml("META-INF/container.xml")
    package_name = next((e.get("full-path") for e in _named(container, "rootfile")), None)
    if not package_name:
        raise UnreadableError("damaged EPUB: container.xml names no package document")
    package = members.parse_xml(package_name)
    items = {item.get("id"): item for item in _named(package, "item")}
    spine = next(_named(package, "spine"), None)
    references = [] if spine is None else list(_named(spine, "itemref"))
    if len(references) > MAX_DOCUMENTS:
        raise UnreadableError(f"more than {MAX_DOCUMENTS:,} documents in a book")
    contents: dict[str, list[_Title]] = {}
    for entry in _contents(members, package_name, items, spine):
        contents.setdefault(entry.member, []).append(entry)
    # A document without an entry continues the one before it.
    below = _MAX_DEPTH if contents else 0
    lines: list[str] = []
    headings: list[tuple[int, int, str]] = []
    failures: list[str] = []
    for number, reference in enumerate(references, start=1):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _PAGE_TYPES or _is_contents(item):
            continue
        member = _resolve(package_name, item.get("href") or "")[0]
        try:
            page = render(decode_html(members.read(member)))
        except UnreadableError as error:
            failures.append(f"document {number} of {len(references)}: {error}")
            continue
        offset = len(lines)
        for index, level, heading in _headings(page, contents.get(member, []), below):
            headings.append((index + offset, level, heading))
        lines += [*page.lines, ""]
    title = next(("".join(e.itertext()) for e in _named(package, "title")), "")
    notes = failures[:_MAX_NOTES]
    if len(failures) > _MAX_NOTES:
        notes.append(f"{len(failures) - _MAX_NOTES:,} more documents could not be loaded")
    return ExtractedText(lines, headings, title=" ".join(title.split())), notes


def _named(root: Any, name: str) -> Any:
    """Iterate over the elements of this name in any namespace."""
    return root.iter(f"{{*}}{name}")


def _refuse_encrypted(members: Members) -> None:
    if _ENCRYPTION not in members:
        return
    for method in _named(members.parse_xml(_ENCRYPTION), "EncryptionMethod"):
        if method.get("Algorithm") not in _FONT_ALGORITHMS:
            raise UnreadableError("encrypted EPUB (copy protection)")


def _resolve(base: str, reference: str) -> tuple[str, str]:
    """Return the member and anchor that a reference in the member ``base`` points to."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return "", ""
    path = unquote(parts.path)
    member = posixpath.normpath(posixpath.join(posixpath.dirname(base), path)) if path else base
    return member, unquote(parts.fragment)


def _is_contents(item: Any) -> bool:
    return "nav" in (item.get("properties") or "").split()


def _contents(members: Members, package_name: str, items: Any, spine: Any) -> list[_Title]:
    """Return the table of contents; empty if there is none or it is damaged."""
    navigation = next((item for item in items.values() if _is_contents(item)), None)
    toc = items.get(spine.get("toc")) if spine is not None else None
    if toc is None:
        toc = next((i for i in items.values() if i.get("media-type") == _NCX_TYPE), None)
    for item, titles_of in ((navigation, _titles_of_navigation), (toc, _titles_of_ncx)):
        if item is None:
            continue
        name = _resolve(package_name, item.get("href") or "")[0]
        try:
            titles = titles_of(name, members.parse_xml(name))
        except UnreadableError:
            continue
        if titles:
            return _placed(titles[:_MAX_TITLES])
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


def _titles_of_navigation(name: str, root: Any) -> list[_Title]:
    navs = list(_named(root, "nav"))
    nav = next((n for n in navs if "toc" in _types(n)), navs[0] if navs else None)
    if nav is None:
        return []
    titles = []
    for item in _named(nav, "li"):
        depth = sum(1 for e in item.iterancestors() if e.tag == item.getparent().tag)
        label = next((e for e in item if local(e) in {"a", "span"}), None)
        if label is not None:
            titles.append(_title(name, label.get("href"), depth, "".join(label.itertext())))
    return [title for title in titles if title is not None]


def _types(nav: Any) -> list[str]:
    return " ".join(value for key, value in nav.attrib.items() if key.endswith("type")).split()


def _titles_of_ncx(name: str, root: Any) -> list[_Title]:
    titles = []
    for point in _named(root, "navPoint"):
        depth = 1 + sum(1 for e in point.iterancestors() if e.tag == point.tag)
        label = next((e for e in point if local(e) == "navLabel"), None)
        content = next((e for e in point if local(e) == "content"), None)
        if label is not None and content is not None:
            titles.append(_title(name, content.get("src"), depth, "".join(label.itertext())))
    return [title for title in titles if title is not None]


def _title(base: str, reference: str | None, depth: int, text: str) -> _Title | None:
    words = " ".join(text.split())
    if not words:
        return None
    member, anchor = _resolve(base, reference) if reference else ("", "")
    return _Title(member, anchor, min(depth, _MAX_DEPTH), words)


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

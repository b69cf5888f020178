import time
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.layout import DocumentTokens, lay_out
from hga_chat.documents.plain.markdown import load_markdown
from hga_chat.documents.plain.text import load_text
from hga_chat.documents.types import Document, LoadedDocuments, Passage, Section


def _loaded(*documents: Document) -> LoadedDocuments:
    return LoadedDocuments(documents, ())


def _text(path: str, text: str) -> Document:
    return Document(path, "text", load_text(path, text.encode()).sections)


def _pages(path: str, *texts: str) -> Document:
    sections = [
        Section(path, f"page {n}", text, None, None, str(n)) for n, text in enumerate(texts, 1)
    ]
    return Document(path, "pdf", tuple(sections))


def _find(layout: DocumentTokens, tokenizer, needle: str) -> tuple[int, int]:
    """Return the shortest range of tokens whose text contains ``needle``."""
    ids = layout.token_ids
    end = bisect_left(range(len(ids)), True, key=lambda n: needle in tokenizer.decode(ids[:n]))
    start = max(n for n in range(max(end - 20, 0), end) if needle in tokenizer.decode(ids[n:end]))
    return start, end


def test_the_text_that_the_model_sees(tokenizer) -> None:
    loaded = _loaded(_text("src/a.py", "x = 1\n"), _pages("b.pdf", "One", "Two"), _text("-", "in"))
    assert tokenizer.decode(lay_out(loaded, tokenizer).token_ids) == (
        "File: src/a.py\n\nx = 1\n\n"
        "File: b.pdf\n\n[page 1]\nOne\n\n[page 2]\nTwo\n\n"
        "Text from standard input\n\nin\n\n"
    )


def test_a_file_name_cannot_pose_as_text(tokenizer) -> None:
    layout = lay_out(_loaded(_text("a\nFile: b\x1b[0m", "x\n")), tokenizer)
    assert tokenizer.decode(layout.token_ids).split("\n")[0] == "File: a␤File: b␛[0m"


def test_locate_gives_exact_lines(tokenizer) -> None:
    text = "".join(f"value_{n} = {n * 7919}\n" for n in range(1, 451))
    layout = lay_out(_loaded(_text("a.py", "pass\n"), _text("b.py", text)), tokenizer)
    (passage,) = layout.locate(*_find(layout, tokenizer, str(321 * 7919)))
    assert passage == Passage("b.py", "lines 201-400", 321, 321, None, "value_321 = 2541999")


def test_locate_gives_the_lines_that_a_section_names(tokenizer) -> None:
    section = Section("a.html", "Lamp", "one\ntwo\n\nthree\n", 4, 90, None, lines=(4, 17, 17, 90))
    layout = lay_out(_loaded(Document("a.html", "html", (section,))), tokenizer)
    (passage,) = layout.locate(*_find(layout, tokenizer, "two"))
    assert (passage.start_line, passage.end_line, passage.text) == (17, 17, "two")
    (passage,) = layout.locate(*_find(layout, tokenizer, "two\n\nthree"))
    assert (passage.start_line, passage.end_line) == (17, 90)
    (passage,) = layout.locate(0, len(layout))
    assert (passage.start_line, passage.end_line) == (4, 90)


def test_a_section_without_lines_and_pages_is_located_by_its_label(tokenizer) -> None:
    section = Section("a.epub", "Part One > Chapter 3", "The lamp.\n", None, None, None)
    layout = lay_out(_loaded(Document("a.epub", "epub", (section,))), tokenizer)
    (passage,) = layout.locate(*_find(layout, tokenizer, "lamp"))
    assert passage == Passage("a.epub", "Part One > Chapter 3", None, None, None, "The lamp.")


def test_locate_gives_pages(tokenizer) -> None:
    layout = lay_out(_loaded(_pages("b.pdf", "Page one", "The code\nis 4711\nhere")), tokenizer)
    (passage,) = layout.locate(*_find(layout, tokenizer, "4711"))
    assert passage == Passage("b.pdf", "page 2", None, None, "2", "is 4711")


def test_a_range_over_several_sections(tokenizer) -> None:
    markdown = load_markdown("m.md", b"# A\n\nalpha\n\n# B\n\nbeta\n").sections
    loaded = _loaded(_text("a.txt", "one\ntwo\n"), Document("m.md", "markdown", markdown))
    layout = lay_out(loaded, tokenizer)
    passages = layout.locate(0, len(layout))
    assert [(p.path, p.label, p.start_line, p.end_line) for p in passages] == [
        ("a.txt", "lines 1-2", 1, 2),
        ("m.md", "A", 1, 4),
        ("m.md", "B", 5, 7),
    ]
    assert passages[2].text == "# B\n\nbeta"


def test_headers_count_as_the_first_line_and_endings_as_the_last(tokenizer) -> None:
    layout = lay_out(_loaded(_text("a.txt", "one\ntwo\nthree")), tokenizer)
    (header,) = layout.locate(0, 1)
    assert (header.start_line, header.end_line, header.text) == (1, 1, "one")
    (ending,) = layout.locate(len(layout) - 1, len(layout))
    assert (ending.start_line, ending.end_line, ending.text) == (3, 3, "three")


def test_ranges_outside_the_documents_are_left_out(tokenizer) -> None:
    layout = lay_out(_loaded(_text("a.txt", "one\n")), tokenizer)
    assert layout.locate(len(layout), len(layout) + 9) == []
    assert layout.locate(-5, 0) == []
    assert layout.locate(3, 3) == []
    assert layout.locate(-5, 10_000) == layout.locate(0, len(layout))


def test_very_long_lines_are_shortened_around_the_tokens(tokenizer) -> None:
    words = " ".join(f"word{n}" for n in range(5000))
    layout = lay_out(_loaded(_text("a.txt", words)), tokenizer)
    (passage,) = layout.locate(*_find(layout, tokenizer, "word2500"))
    assert " word2500 " in passage.text
    assert 300 < len(passage.text) < 500
    assert set(passage.text.split()) <= set(words.split())


def test_passages_of_very_long_lines_are_whole_sentences(tokenizer) -> None:
    sentences = [f"This is sentence {n}, of moderate length." for n in range(500)]
    layout = lay_out(_loaded(_text("a.txt", " ".join(sentences))), tokenizer)
    for sought in ("sentence 250", "length. This is sentence 301"):
        (passage,) = layout.locate(*_find(layout, tokenizer, sought))
        assert sought in passage.text
        assert passage.text.startswith("This is")
        assert passage.text.endswith(" length.")
        assert 200 < len(passage.text) < 500


_text_of_lines = st.lists(
    st.text(st.sampled_from("ab \t#é漢🙂"), max_size=12), min_size=1, max_size=30
).map("\n".join)
_documents = st.lists(_text_of_lines.filter(str.strip), min_size=1, max_size=4)


@given(texts=_documents, data=st.data())
def test_ranges_tile_and_passages_hold_the_text(
    tokenizer, texts: list[str], data: st.DataObject
) -> None:
    makers = [
        lambda path, text: _text(path, text),
        lambda path, text: _pages(path, *text.split("\n\n")),
        lambda path, text: Document(path, "markdown", load_markdown(path, text.encode()).sections),
    ]
    documents = [
        data.draw(st.sampled_from(makers))(f"d{index}", text) for index, text in enumerate(texts)
    ]
    layout = lay_out(_loaded(*documents), tokenizer)

    position = 0
    for span in layout.documents:
        assert span.start == position
        for section in span.sections:
            assert section.start == position
            assert section.start <= section.text_start <= section.text_end <= section.end
            ids = layout.token_ids[section.text_start : section.text_end]
            assert tokenizer.decode(ids) == section.section.text
            position = section.end
        assert span.end == position
    assert position == len(layout.token_ids)

    start = data.draw(st.integers(0, len(layout) - 1))
    end = data.draw(st.integers(start + 1, len(layout)))
    passages = layout.locate(start, end)
    touched = [
        section
        for span in layout.documents
        for section in span.sections
        if section.start < end and section.end > start
    ]
    assert [p.label for p in passages] == [s.section.label for s in touched]
    for passage, section in zip(passages, touched, strict=True):
        low, high = max(start, section.text_start), min(end, section.text_end)
        while low < high and layout_splits_character(section, low):
            low += 1
        while low < high and layout_splits_character(section, high):
            high -= 1
        decoded = tokenizer.decode(layout.token_ids[low:high])
        assert decoded.strip("\n") in passage.text
        if passage.start_line is not None and low < high:
            lines = section.section.text.split("\n")
            first = passage.start_line - section.section.start_line
            last = passage.end_line - section.section.start_line
            assert passage.text == "\n".join(lines[first : last + 1])


def layout_splits_character(section, token: int) -> bool:
    """Whether the boundary before ``token`` is inside a character."""
    index = token - section.text_start
    if index == 0 or index >= len(section.offsets):
        return False
    return section.offsets[index] == section.offsets[index - 1]


def test_laying_out_is_fast(tokenizer) -> None:
    text = "def function(argument):\n    return argument + 1\n\n" * 4000
    started = time.perf_counter()
    layout = lay_out(_loaded(_text("a.py", text)), tokenizer)
    assert len(layout) > 50_000
    for start in range(0, len(layout), 1024):
        layout.locate(start, start + 16)
    assert time.perf_counter() - started < 5


def test_chapters_cover_a_book_and_join_the_parts_of_a_long_one(tokenizer) -> None:
    labels = ("Title", "One", "One, part 2", "One, part 3", "Two", "Two > A", "Two, part 2")
    sections = [Section("b.epub", label, f"{label}\n", None, None, None) for label in labels]
    book = Document("b.epub", "epub", tuple(sections))
    text = _text("a.txt", "one\n" * 500)
    pages = _pages("c.pdf", "One", "Two")
    spans = lay_out(_loaded(text, book, pages), tokenizer).documents
    assert spans[0].chapters == spans[2].chapters == ()  # lines and pages address these
    chapters = spans[1].chapters
    assert [chapter.label for chapter in chapters] == [
        "Title",
        "One",
        "Two",
        "Two > A",
        "Two, part 2",
    ]
    assert [chapter.start for chapter in chapters[1:]] == [c.end for c in chapters[:-1]]
    assert (chapters[0].start, chapters[-1].end) == (spans[1].start, spans[1].end)
    whole = Document("d.epub", "epub", (Section("d.epub", "text", "One\n", None, None, None),))
    assert lay_out(_loaded(whole), tokenizer).documents[0].chapters == ()

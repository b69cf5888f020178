import pytest

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.documents.types import where
from hga_chat.screen.drawing.ramp import LEVELS, step
from hga_chat.screen.trace.block_grid import BlockGrid


class Letters:
    """One token a character."""

    def encode(self, text):
        return [ord(sign) for sign in text]

    def encode_with_offsets(self, text):
        return self.encode(text), [(n, n + 1) for n in range(len(text))]


def layout(*sizes):
    """Documents of exactly so many tokens, one behind the other."""
    documents = []
    for number, size in enumerate(sizes):
        name = f"{number}"
        header = len(f"File: {name}\n\n")
        text = "x" * (size - header - 1) + "\n"
        end = len("\n")  # keeps documents apart
        text = text[end:]
        documents.append(Document(name, "text", (Section(name, name, text, 1, 1, None),)))
    laid_out = lay_out(LoadedDocuments(tuple(documents), ()), Letters())
    assert [span.tokens for span in laid_out.documents] == list(sizes)
    return laid_out


def test_blocks_are_chunks_of_the_session_that_hold_documents():
    grid = BlockGrid(layout(100, 60), document_start=70, chunk_size=64, trace_bin_tokens=16)
    # Tokens 70 to 230: chunks 1, 2 and 3; the second document begins at 170.
    assert grid.blocks == 3
    assert grid.documents == [0, 0, 1]


def test_block_levels_are_square_roots_relative_to_the_heaviest_block():
    grid = BlockGrid(layout(100, 60), 70, 64, 16)
    mass = [9.0] * 4 + [0.25] * 4 + [0.0, 0.0, 4.0, 0.0]
    assert grid.block_levels(mass) == [0.5, 1.0, 0.0]
    assert grid.block_levels([]) == [0.0] * 3


def test_shares_count_document_tokens_only():
    grid = BlockGrid(layout(40, 24), document_start=8, chunk_size=64, trace_bin_tokens=16)
    # Documents at 8–48 and 48–72; half of bins 0 and 4 belongs to others.
    mass = [2.0, 1.0, 0.0, 1.0, 2.0]
    documents = [(0, 40), (40, 64)]
    assert grid.shares(mass, documents) == pytest.approx([0.5, 0.5])
    assert grid.shares([], documents) == [0.0, 0.0]
    assert grid.shares(mass, [(8, 24)]) == pytest.approx([1 / 4])
    assert grid.shares(mass, [(8, 24)], whole=16.0) == pytest.approx([1 / 16])


def test_blocks_map_to_tokens_and_back():
    grid = BlockGrid(layout(100, 60), 70, 64, 16)
    assert [grid.tokens_of(block) for block in range(3)] == [(0, 58), (58, 122), (122, 160)]
    assert [grid.block_of(token) for token in (0, 57, 58, 159)] == [0, 0, 1, 2]


def test_a_passage_lies_in_the_bins_that_hold_its_tokens():
    grid = BlockGrid(layout(40, 24), 8, 64, 16)
    assert grid.bins_of(8, 40) == range(1, 3)
    assert grid.bins_of(9, 41) == range(1, 4)
    assert grid.bins_of(40, 40) == range(3, 4)  # an empty passage has a place as well


def test_passage_of_a_block():
    grid = BlockGrid(layout(100, 60), 70, 64, 16)
    assert grid.passage(0).path == "0"
    assert grid.passage(2).path == "1"


def test_without_documents_there_is_nothing_to_show():
    grid = BlockGrid(None, 0, 64, 16)
    assert (grid.blocks, grid.block_levels([1.0]), grid.shares([1.0], [])) == (0, [], [])
    assert grid.passage(0) is None


def test_any_attention_differs_from_none():
    assert step(0.0) == 0
    assert step(0.001) == 1
    assert step(1.0) == step(2.0) == LEVELS - 1


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("a.py", 3, 3, None), "a.py:3"),
        (("a.py", 3, 9, None), "a.py:3-9"),
        (("b.pdf", None, None, "xii"), "b.pdf, page xii"),
        (("c.epub", None, None, None, "Chapter 1"), "c.epub, Chapter 1"),
        (("d.txt", None, None, None, "d.txt"), "d.txt"),
        (("-", 3, 9, None), "standard input:3-9"),
    ],
)
def test_places_as_people_write_them(place, text):
    assert where(*place) == text

import re

import pytest
import torch

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.sources import (
    LEAST_MASS,
    MAX_SOURCES,
    Source,
    add_mass,
    attribute,
    document_bins,
    sentence_numbers,
    standing_out,
    standing_out_in,
)
from tests.support.scripted import ScriptedTokenizer

BIN = 16


def numbered(path, lines):
    """A file of four-word lines, which the tokenizer of these tests makes four tokens each."""
    text = "".join(f"{path}{line} has four words\n" for line in range(1, lines + 1))
    return Document(path, "text", (Section(path, path, text, 1, lines, None),))


@pytest.fixture
def layout():
    return lay_out(
        LoadedDocuments((numbered("a", 400), numbered("b", 400)), ()), ScriptedTokenizer()
    )


def mass_on(layout, document_start, *ranges):
    """[bins] mass spread evenly over ranges of document tokens, with their shares."""
    mass = torch.zeros((document_start + len(layout)) // BIN + 1)
    for start, end, share in ranges:
        touched = range((document_start + start) // BIN, (document_start + end - 1) // BIN + 1)
        for number in touched:
            mass[number] += share / len(touched)
    return mass


def sources_of(layout, document_start, *ranges):
    """Return the sources of an answer of one token."""
    mass = mass_on(layout, document_start, *ranges)
    return find_sources([mass], ["word"], layout, document_start)


def find_sources(read, pieces, layout, document_start):
    """The sources of the first answer, right after the documents."""
    found = attribute(read, pieces, layout, document_start, document_start + len(layout))
    assert not found.from_conversation
    return found.sources


def test_heaviest_passage_comes_first_with_its_share_and_exact_lines(layout):
    a, b = layout.documents
    # 160 tokens are 10 bins into a file; the documents begin at position 8 of the session.
    at = b.start + (-b.start - 8) % BIN + 160
    first, second = sources_of(layout, 8, (a.start + 328, a.start + 344, 0.25), (at, at + 32, 0.75))
    assert (first.path, first.score) == ("b", pytest.approx(0.75))
    assert (first.start_token, first.end_token) == (at, at + 32)
    passage = layout.locate(at, at + 32)[0]
    assert (first.start_line, first.end_line) == (passage.start_line, passage.end_line)
    assert first.text == passage.text
    assert second.path == "a"


def test_neighbours_that_stand_out_nearly_as_much_belong_to_a_passage(layout):
    around = [(304, 320, 0.01), (320, 336, 0.1), (336, 352, 0.2), (352, 368, 0.07)]
    near, *_, faint = sources_of(layout, 0, *around, (416, 432, 0.05))
    assert (near.start_token, near.end_token) == (320, 368)
    assert near.score == pytest.approx(0.37 / 0.43)
    assert (faint.start_token, faint.end_token) == (416, 432)


def test_a_passage_extends_two_bins_to_each_side(layout):
    first, *rest = sources_of(
        layout, 0, (256, 272, 0.2), *[(272 + 16 * n, 288 + 16 * n, 0.1) for n in range(4)]
    )
    assert (first.start_token, first.end_token) == (256, 304)
    assert [source.start_token for source in rest] == [304]


def test_passages_do_not_run_over_the_border_of_two_files(layout):
    border = layout.documents[1].start
    start = border // BIN * BIN
    found = sources_of(layout, 0, (start - 32, start, 0.5), (start + 16, start + 48, 0.5))
    assert {source.path for source in found} == {"a", "b"}
    for source in found:
        assert source.text.startswith(source.path)


def test_at_most_five_passages_and_none_far_below_the_best(layout):
    many = [(320 + 64 * n, 336 + 64 * n, 0.1) for n in range(9)]
    assert len(sources_of(layout, 0, *many)) == MAX_SOURCES
    faint = sources_of(layout, 0, (320, 336, 0.9), (480, 496, 0.08))
    assert [source.start_token for source in faint] == [320]


def test_no_source_is_named_if_nothing_stands_out(layout):
    assert sources_of(layout, 0, (320, 336, LEAST_MASS / 2)) == ()
    assert len(sources_of(layout, 0, (320, 336, LEAST_MASS * 2))) == 1
    assert find_sources([], [], layout, 0) == ()
    assert find_sources([torch.zeros(300)] * 3, ["a", "b", "c"], layout, 0) == ()


def test_the_first_bin_and_bins_outside_the_documents_do_not_count(layout):
    mass = torch.zeros(len(layout) // BIN + 40)
    mass[0] = 5.0  # the sink
    mass[1] = 5.0  # before the documents, which begin in bin 2
    mass[(32 + len(layout)) // BIN :] = 5.0  # from the bin in which the question begins
    assert find_sources([mass], ["word"], layout, 32) == ()
    mass[10] = 0.5
    (source,) = find_sources([mass], ["word"], layout, 32)
    assert (source.start_token, source.score) == (160 - 32, 1.0)


def test_every_sentence_has_its_best_passage_before_any_has_a_second(layout):
    one = mass_on(layout, 0, (320, 336, 0.1), (640, 656, 0.05))
    other = mass_on(layout, 0, (960, 976, 0.08), (1280, 1296, 0.04))
    nothing = torch.zeros_like(one)
    pieces = [
        "It",
        " is",
        " so",
        " and",
        " not",
        " else",
        ". ",
        "Then",
        " it",
        " was",
        " so",
        " and",
        " no",
        ".",
    ]
    read = [other, *[nothing] * 6, one, one, *[nothing] * 5]
    found = find_sources(read, pieces, layout, 0)
    assert [source.start_token for source in found] == [960, 320, 1280, 640]


def test_a_passage_of_two_sentences_is_named_once(layout):
    read = mass_on(layout, 0, (320, 336, 0.1))
    nothing = torch.zeros_like(read)
    pieces = [*["word "] * 5, "end. "] * 2
    read = [read, *[nothing] * 5] * 2
    found = attribute(read, pieces, layout, 0, len(layout))
    (source,) = found.sources
    # Its share counts both sentences, and everything that stands out lies on it.
    assert source.start_token == 320
    assert source.score == pytest.approx(1.0)
    bins = document_bins(layout, 0)
    in_documents, _ = standing_out_in(bins, read)
    assert float(in_documents.sum()) == pytest.approx(0.2)
    assert float(in_documents.sum(0)[320 // BIN - bins.start]) == pytest.approx(0.2)


@pytest.mark.parametrize(("in_turns", "is_from_there"), [(0.04, False), (0.06, True)])
def test_an_answer_that_attends_more_to_earlier_turns_is_from_the_conversation(
    layout, in_turns, is_from_there
):
    documents = mass_on(layout, 0, (320, 336, 0.05))
    first = len(layout) // BIN
    # A passage of two bins among four of earlier turns, then the question, which does not count.
    earlier = torch.tensor([0, in_turns / 2, in_turns / 2, 0])
    mass = torch.cat((documents[:first], earlier, torch.ones(3)))
    read = [mass, *[torch.zeros_like(mass)] * 4]
    turn_start = (first + 4) * BIN + 5
    found = attribute(read, list("words"), layout, 0, turn_start)
    assert found.from_conversation == is_from_there
    assert [source.start_token for source in found.sources] == ([] if is_from_there else [320])


@pytest.mark.parametrize("turns", [2, 40])
def test_a_long_conversation_does_not_outweigh_a_passage(layout, turns):
    documents = mass_on(layout, 0, (320, 336, 0.05))
    first = len(layout) // BIN
    # Each earlier turn of eight bins draws a little at one place; together they may draw more.
    earlier = torch.tensor([0.02, *[0.0] * 7]).repeat(turns)
    mass = torch.cat((documents[:first], earlier, torch.ones(3)))
    read = [mass, *[torch.zeros_like(mass)] * 4]
    found = attribute(read, list("words"), layout, 0, (first + len(earlier)) * BIN + 5)
    assert not found.from_conversation
    assert [source.start_token for source in found.sources] == [320]


@pytest.mark.parametrize(
    ("earlier", "is_from_there"),
    [
        (["It has four words."], True),
        (["By the text, it is wet.", "No."], False),
        (["By the text, so."], True),  # all of it repeats an earlier answer
    ],
)
def test_an_opening_that_earlier_answers_have_does_not_count(layout, earlier, is_from_there):
    documents = mass_on(layout, 0, (320, 336, 0.05))
    first = len(layout) // BIN
    on_turns = torch.zeros(first + 4 + 3)
    on_turns[first + 1] = 0.2
    on_documents = torch.cat((documents[:first], torch.zeros(4 + 3)))
    nothing = torch.zeros_like(on_turns)
    pieces = ["By", " the", " text", ",", " so", "."]
    read = [on_turns, on_turns, nothing, nothing, on_documents, nothing]
    turn_start = (first + 4) * BIN
    found = attribute(read, pieces, layout, 0, turn_start, earlier)
    assert found.from_conversation == is_from_there


def test_sentences_and_lines_are_numbered():
    text = "It is 0.84 of one here. (Is it really so or not?) Yes it is so, and ever was"
    pieces = list(re.split(r"(?= )", text))
    numbers = sentence_numbers(pieces)
    assert [pieces[numbers.index(n)] for n in (0, 1, 2)] == ["It", " (Is", " Yes"]
    assert max(numbers) == 2
    assert sentence_numbers(["a ", "b ", "c ", "d ", "e ", "f\n", "g", "h"]) == [0] * 6 + [1] * 2


def test_an_abbreviation_does_not_end_a_sentence():
    pieces = ["She", " is", " Dr", ".", " Amina", " Solberg", " of", " Pellworth", "."]
    assert set(sentence_numbers(pieces)) == {0}


def test_mass_of_a_growing_session_is_summed():
    total = add_mass(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5, 0.25]))
    torch.testing.assert_close(total, torch.tensor([1.5, 2.5, 0.25]))
    torch.testing.assert_close(add_mass(total, torch.ones(1)), torch.tensor([2.5, 2.5, 0.25]))


@pytest.mark.parametrize(
    ("label", "start", "end", "page", "place"),
    [
        ("lines 1-99", 10, 24, None, "f:10-24"),
        ("Part One", 3, 3, None, "f:3"),
        ("page iv", None, None, "iv", "f, page iv"),
        ("Part One > Chapter 3", None, None, None, "f, Part One > Chapter 3"),
    ],
)
def test_place_for_people(label, start, end, page, place):
    assert Source("f", label, start, end, page, 1.0, "", 0, 1).place == place


def test_mass_that_every_token_has_does_not_stand_out() -> None:
    always, once, later = [0.5, 0.5, 0.5], [0.0, 0.25, 0.0], [0.125, 0.0]
    tokens = [
        torch.tensor([always[0], once[0]]),
        torch.tensor([always[1], once[1], later[0]]),
        torch.tensor([always[2], once[2], later[1]]),
    ]
    expected = torch.tensor([[0, 0, 0], [0, 0.25, 0.125], [0, 0, 0]])
    torch.testing.assert_close(standing_out(tokens), expected)


def test_all_mass_stands_out_if_tokens_do_not_differ() -> None:
    token = torch.tensor([0.5, 0.25])
    torch.testing.assert_close(standing_out([token]), token[None])
    torch.testing.assert_close(standing_out([token, token]), torch.stack([token, token]))
    assert standing_out([]).numel() == 0


@pytest.mark.parametrize(("document_start", "first"), [(0, 1), (8, 1), (16, 1), (24, 2), (32, 2)])
def test_bins_shared_with_the_system_prompt_are_no_sources(layout, document_start, first):
    bins = document_bins(layout, document_start)
    assert bins.start == first
    assert bins.start * BIN >= document_start
    assert bins.stop * BIN <= document_start + len(layout)

import pytest
import torch
from scripted import ScriptedTokenizer

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.sources import MAX_SOURCES, Source, add_mass, find_sources, standing_out

GROUP = 16


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
    """[groups] mass spread evenly over ranges of document tokens, with their shares."""
    groups = torch.zeros((document_start + len(layout)) // GROUP + 1)
    for start, end, share in ranges:
        touched = range((document_start + start) // GROUP, (document_start + end - 1) // GROUP + 1)
        for group in touched:
            groups[group] += share / len(touched)
    return groups


def test_heaviest_passage_comes_first_with_its_share_and_exact_lines(layout):
    a, b = layout.documents
    # 160 = 10 groups into a file; the position of the session is 8 tokens further.
    at = b.start + (-b.start - 8) % GROUP + 160
    mass = mass_on(layout, 8, (a.start + 328, a.start + 344, 0.25), (at, at + 32, 0.75))
    first, second = find_sources(mass, layout, 8)
    assert (first.path, first.score) == ("b", pytest.approx(0.75))
    assert (first.start_token, first.end_token) == (at, at + 32)
    passage = layout.locate(at, at + 32)[0]
    assert (first.start_line, first.end_line) == (passage.start_line, passage.end_line)
    assert first.text == passage.text
    assert second.path == "a"


def test_neighbours_and_those_one_group_apart_are_one_passage(layout):
    mass = mass_on(layout, 0, (320, 336, 0.4), (352, 368, 0.3), (416, 432, 0.3))
    near, far = find_sources(mass, layout, 0)
    assert (near.start_token, near.end_token, near.score) == (320, 368, pytest.approx(0.7))
    assert (far.start_token, far.end_token) == (416, 432)


def test_passages_do_not_run_over_the_border_of_two_files(layout):
    border = layout.documents[1].start
    start = border // GROUP * GROUP
    mass = mass_on(layout, 0, (start - 32, start, 0.5), (start + 16, start + 48, 0.5))
    assert {source.path for source in find_sources(mass, layout, 0)} == {"a", "b"}
    for source in find_sources(mass, layout, 0):
        assert source.text.startswith(source.path)


def test_at_most_five_and_none_that_is_faint_beside_the_best(layout):
    many = [(320 + 64 * n, 336 + 64 * n, 0.1) for n in range(9)]
    assert len(find_sources(mass_on(layout, 0, *many), layout, 0)) == MAX_SOURCES
    faint = mass_on(layout, 0, (320, 336, 0.9), (480, 496, 0.08))
    assert [source.start_token for source in find_sources(faint, layout, 0)] == [320]


def test_mass_outside_the_documents_does_not_count(layout):
    mass = torch.zeros(len(layout) // GROUP + 40)
    mass[0] = 5.0  # before the documents, which begin in group 2
    mass[-1] = 5.0  # the question
    assert find_sources(mass, layout, 32) == ()
    mass[10] = 0.5
    (source,) = find_sources(mass, layout, 32)
    assert (source.start_token, source.score) == (160 - 32, 1.0)


def test_no_mass_no_sources(layout):
    assert find_sources(torch.zeros(0), layout, 0) == ()


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


def test_what_every_token_reads_does_not_stand_out() -> None:
    always, once, later = [0.5, 0.5, 0.5], [0.0, 0.25, 0.0], [0.125, 0.0]
    tokens = [
        torch.tensor([always[0], once[0]]),
        torch.tensor([always[1], once[1], later[0]]),
        torch.tensor([always[2], once[2], later[1]]),
    ]
    torch.testing.assert_close(standing_out(tokens), torch.tensor([0.0, 0.25, 0.125]))


def test_the_mass_of_a_single_token_stands_out() -> None:
    torch.testing.assert_close(standing_out([torch.tensor([0.5, 0.25])]), torch.tensor([0.5, 0.25]))
    assert standing_out([]).numel() == 0

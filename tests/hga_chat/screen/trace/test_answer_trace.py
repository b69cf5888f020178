import pytest
import torch

from hga_chat.screen.trace.answer_trace import KEPT_GROUPS, SERIAL, AnswerReading, written_at


def mass(groups, **shares):
    found = torch.zeros(groups)
    for name, share in shares.items():
        found[int(name[1:])] = share
    return found


def test_tokens_are_told_by_the_characters_they_wrote():
    reading = AnswerReading()
    reading.add((3, 0), [mass(4, g0=1.0), mass(4, g1=1.0)])
    reading.add((2,), [mass(4, g2=1.0)])
    assert [reading.token_at(at) for at in (0, 2, 3, 4, 5)] == [0, 0, 2, 2, None]
    assert [reading.span(token) for token in range(3)] == [(0, 3), (3, 3), (3, 5)]


def test_what_every_token_reads_is_not_counted():
    reading = AnswerReading()
    # The first group, at the end of the text, is read most, and by every token alike.
    reading.add((1, 1), [mass(3, g0=1.0, g1=0.25), mass(3, g0=1.0)])
    newest = reading.add((1, 1), [mass(40, g0=1.0), mass(40, g0=1.0, g39=0.5)])
    assert newest == [0.0] * 39 + [0.375]
    assert reading.total == [0.0, 0.125, *[0.0] * 37, 0.375]
    assert reading.all_mass == [4.0, 0.25, *[0.0] * 37, 0.5]
    assert reading.of_token(3) == newest
    assert reading.of_token(0)[:3] == [0.0, 0.125, 0.0]


def test_more_than_is_computed_at_once_is_added_up_piece_by_piece():
    masses = list(torch.rand(9, SERIAL // 4, generator=torch.Generator().manual_seed(0)))
    reading = AnswerReading()
    newest = reading.add(range(1, 10), masses)
    assert reading.all_mass == pytest.approx(sum(masses).tolist(), rel=1e-5)
    assert newest == pytest.approx(reading.total)
    assert [reading.span(token) for token in (0, 4, 8)] == [(0, 1), (10, 15), (36, 45)]


def test_tokens_that_read_the_same_are_shown_as_they_are():
    reading = AnswerReading()
    for _ in range(3):
        assert reading.add((1,), [mass(2, g1=0.1)]) == pytest.approx([0.0, 0.1])
    assert reading.total == pytest.approx([0.0, 0.3])


def test_a_complete_answer_is_counted_as_its_sources_are():
    reading = AnswerReading()
    always = mass(6, g0=0.3, g4=0.3, g5=0.3)
    reading.add((1,), [mass(6, g2=1.0)], always)
    assert list(reading.always) == [1, 0, 0, 0, 1, 1]
    reading.complete(torch.tensor([4.0, 1.0, 2.0, 0.0, 2.0, 1.0]), [range(4, 5)])
    # What is always read counts where it is a source, but shares are of everything.
    assert reading.total == [0.0, 1.0, 2.0, 0.0, 2.0, 0.0]
    assert reading.whole == 10.0


def test_of_many_groups_those_read_most_are_kept():
    reading = AnswerReading()
    reading.add((1,), [torch.arange(100, dtype=torch.float32)])
    kept = reading.of_token(0)
    assert [n for n, value in enumerate(kept) if value] == list(range(100 - KEPT_GROUPS, 100))
    reading.keep_sum()
    assert reading.tokens == 0
    assert reading.all_mass[99] == 99.0


def test_layers_are_known_until_only_the_sum_is_kept():
    reading = AnswerReading()
    assert reading.num_layers == 0
    reading.layers = torch.tensor([[0.0, 0.25], [0.5, 0.0], [0.0, 0.0]])
    assert reading.num_layers == 3
    assert reading.of_layer(1) == [0.5, 0.0]
    reading.keep_sum()
    assert reading.num_layers == 0


@pytest.mark.parametrize(
    ("source", "shown", "offsets"),
    [
        ("a **b** c", "a b c", [0, 1, 4, 7, 8]),
        ("`x` y", "x y", [1, 3, 4]),
        ("- item", "item", [2, 3, 4, 5]),
    ],
)
def test_rendered_characters_know_where_they_were_written(source, shown, offsets):
    assert written_at(source, shown) == offsets

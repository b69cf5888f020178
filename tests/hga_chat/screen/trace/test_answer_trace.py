import torch

from hga_chat.screen.engine.reports import TraceReport
from hga_chat.screen.trace.answer_trace import AnswerTrace


def report(standing_out, window=b"", tokens=(), layers=((0.0,),)):
    """A report in which every token stands out in one bin: (bin, mass)."""
    total = torch.tensor(standing_out, dtype=torch.float64)
    return TraceReport(
        standing_out=total,
        newest=total,
        token_bins=torch.tensor([[number] for number, _ in tokens], dtype=torch.int32),
        token_mass=torch.tensor([[mass] for _, mass in tokens]),
        routed=total.float() * 2,
        window=window,
        layers=torch.tensor(layers),
    )


def test_tokens_are_found_by_the_characters_they_wrote():
    trace = AnswerTrace()
    trace.extend((3, 0))
    trace.extend((2,))
    assert [trace.token_at(at) for at in (0, 2, 3, 4, 5)] == [0, 0, 2, 2, None]
    assert [trace.span(token) for token in range(3)] == [(0, 3), (3, 3), (3, 5)]


def test_the_window_counts_only_where_it_holds_a_source():
    trace = AnswerTrace()
    found = report([4.0, 1.0, 2.0, 0.0, 2.0, 1.0], window=bytes([1, 0, 0, 0, 1, 1]))
    trace.update(found)
    assert trace.total == [0.0, 1.0, 2.0, 0.0, 0.0, 0.0]
    trace.update(found, [range(4, 5)])
    assert trace.total == [0.0, 1.0, 2.0, 0.0, 2.0, 0.0]
    assert trace.whole == 10.0  # shares refer to everything that stands out
    assert trace.shares.tolist() == [0.0, 0.1, 0.2, 0.0, 0.2, 0.0]


def test_a_token_has_mass_in_its_bins_once_it_is_reported():
    trace = AnswerTrace()
    assert trace.of_token(0) == []
    trace.update(report([0.0, 0.5, 0.25], tokens=[(1, 0.5), (2, 0.25)]))
    assert trace.of_token(0) == [0.0, 0.5, 0.0]
    assert trace.of_token(1) == [0.0, 0.0, 0.25]
    assert trace.of_token(2) == []


def test_nothing_stands_out_before_the_first_report():
    trace = AnswerTrace()
    assert (trace.total, trace.routed, trace.shares) == ([], [], None)
    trace.update(report([0.0, 0.0]))
    assert trace.shares is None


def test_shares_of_saved_sources_lie_evenly_in_their_bins():
    trace = AnswerTrace()
    trace.restore([(range(1, 3), 0.5), (range(2, 3), 0.25)])
    assert trace.total == trace.routed == [0.0, 0.25, 0.5]
    assert trace.whole == 1.0


def test_sums_outlast_tokens_and_layers():
    trace = AnswerTrace()
    trace.extend((1,))
    trace.update(report([0.0, 2.0], layers=[[0.0, 0.25], [0.5, 0.0], [0.0, 0.0]]))
    assert trace.num_layers == 3
    assert trace.of_layer(1) == [0.5, 0.0]
    trace.drop_tokens()
    assert (trace.tokens, trace.num_layers) == (0, 0)
    assert (trace.total, trace.routed) == ([0.0, 2.0], [0.0, 4.0])

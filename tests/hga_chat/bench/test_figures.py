from statistics import NormalDist

import pytest
import torch

from hga_chat.bench.figures import compare, families, interval, segments
from hga_chat.bench.measure import Answered, Sample, Scored
from hga_chat.bench.tasks import Task
from hga_engine.attention.coverage import Coverage


def scored(nats, *, choices=None, needles=(), coverage=None, copies=(1.0,), sparsity=0.5):
    nats = torch.as_tensor(nats, dtype=torch.float64)
    choices = torch.zeros(len(nats), dtype=torch.int32) if choices is None else choices
    copies = torch.tensor(copies, dtype=torch.float64)
    return Scored(nats, choices, sparsity, sparsity / 2, coverage, copies, needles)


def test_the_interval_approaches_the_normal_one_for_many_values():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(1)).double() * 3 + 2
    low, high = interval(values)
    margin = NormalDist().inv_cdf(0.975) * float(values.std()) / 4000**0.5
    assert (low, high) == pytest.approx(
        (float(values.mean()) - margin, float(values.mean()) + margin), abs=margin / 10
    )
    assert interval(torch.full((5,), 0.25).double()) == (0.25, 0.25)


def test_segments_are_means_of_neighbours():
    values = torch.cat((torch.full((260,), 1.0), torch.full((260,), 3.0)))
    assert segments(values).tolist() == [1, 3]
    assert len(segments(torch.ones(767))) == 2
    assert segments(torch.tensor([1.0, 2.0])).tolist() == [1.5]


def test_gaps_are_to_dense_attention_over_all_texts():
    tokens = 1024
    ramp = torch.linspace(0, 1, tokens)
    dense = [scored(torch.ones(tokens)), scored(torch.full((tokens,), 2.0))]
    routed = [scored(1 + 2 * ramp, sparsity=0.2), scored(torch.full((tokens,), 2.0), sparsity=0.4)]
    found = compare(routed, dense)
    assert found["gap_nats"] == pytest.approx(0.5)
    assert found["gap_last_half_nats"] == pytest.approx(0.75, abs=1e-3)
    assert found["sparsity"] == pytest.approx(0.3)
    assert found["sparsity_last_half"] == pytest.approx(0.15)
    parts = found["gap_by_position"]
    assert parts == pytest.approx([(2 * n + 1) / 16 for n in range(8)], abs=1e-3)
    low, high = found["gap_interval"]
    assert low < 0.5 < high


def test_agreement_needles_and_copies():
    dense = [scored([1, 1], needles=(True, True, False), copies=(1, 2))]
    same = torch.tensor([0, 7], dtype=torch.int32)
    routed = [scored([1, 1], choices=same, needles=(True, False, False), copies=(1.5, 2))]
    found = compare(routed, dense)
    assert found["greedy_agreement"] == 0.5
    assert found["copies_gap_nats"] == 0.25
    assert found["needles"] == 1
    assert found["needles_by_depth"] == [
        {"depth": 0, "found": 1},
        {"depth": 0.5, "found": 0},
        {"depth": 1, "found": 0},
    ]
    assert found["recall"] is None


def test_recall_is_by_layer_and_head_and_none_without_a_choice():
    coverage = Coverage(1, 2, 64)
    coverage.total += torch.tensor([[10.0, 10.0]])
    coverage.attended += torch.tensor([[9.0, 10.0]])
    coverage.selectable += torch.tensor([[4.0, 1e-12]])
    coverage.routed += torch.tensor([[3.0, 0.0]])
    one = scored([1, 1], coverage=coverage)
    found = compare([one, one], [scored([1, 1])] * 2)["recall"]
    assert found["attended"] == pytest.approx(0.95)
    assert found["routed"] == pytest.approx(0.75)
    assert found["routed_by_layer_and_head"] == [[0.75, None]]


def test_families_are_means_over_texts():
    task = Task("variables", "", ("a", "b"), "")
    other = Task("many keys", "", ("a",), "")
    samples = [Sample((), tasks=(task, other)), Sample((), tasks=(task,))]
    answered = [
        Answered((0.5, 1.0), (2.0, 1.0), (0.0, 0.5)),
        Answered((1.0,), (3.0,), (0.5,)),
    ]
    assert families(samples, answered) == {
        "many keys": {"score": 1.0, "answer_nats": 1.0, "answer_known": 0.5, "tasks": 1},
        "variables": {"score": 0.75, "answer_nats": 2.5, "answer_known": 0.25, "tasks": 2},
    }

"""Summarizes measurements, with confidence intervals."""

from collections.abc import Sequence
from typing import Any

import torch

from hga_chat.bench.measure import Answered, Sample, Scored
from hga_chat.bench.tasks import FAMILIES
from hga_chat.bench.text import depths

SEGMENT_TOKENS = 256
PARTS = 8
_RESAMPLED = 2000
_CERTAINTY = 0.95
_ROUNDING = 1e-9


def interval(values: torch.Tensor) -> tuple[float, float]:
    """Return the 95% confidence interval of the mean, by the bootstrap (Efron, 1979).

    Args:
        values: [segments] float64, nearly independent of one another.
    """
    draw = torch.Generator().manual_seed(0)
    picked = torch.randint(len(values), (_RESAMPLED, len(values)), generator=draw)
    outside = (1 - _CERTAINTY) / 2
    low, high = values[picked].mean(1).quantile(torch.tensor([outside, 1 - outside]).double())
    return float(low), float(high)


def segments(values: torch.Tensor) -> torch.Tensor:
    """Return means over segments of about ``SEGMENT_TOKENS`` tokens, [tokens] to [segments]."""
    parts = max(1, len(values) // SEGMENT_TOKENS)
    return torch.stack([part.mean() for part in values.tensor_split(parts)])


def compare(routed: Sequence[Scored], dense: Sequence[Scored]) -> dict[str, Any]:
    """Compare routed with dense attention over the same texts."""
    gaps = [one.nats - other.nats for one, other in zip(routed, dense, strict=True)]
    halves = [gap[(len(gap) + 1) // 2 :] for gap in gaps]
    by_part = [torch.stack([part.mean() for part in gap.tensor_split(PARTS)]) for gap in gaps]
    agreement = [
        (one.choices == other.choices).double() for one, other in zip(routed, dense, strict=True)
    ]
    copies = torch.cat(
        [one.copies - other.copies for one, other in zip(routed, dense, strict=True)]
    )
    pooled = torch.cat([segments(gap) for gap in gaps])
    late = torch.cat([segments(half) for half in halves])
    return {
        "gap_nats": float(torch.cat(gaps).mean()),
        "gap_interval": interval(pooled),
        "gap_last_half_nats": float(torch.cat(halves).mean()),
        "gap_last_half_interval": interval(late),
        "gap_by_position": torch.stack(by_part).mean(0).tolist(),
        "greedy_agreement": float(torch.cat(agreement).mean()),
        "sparsity": sum(one.sparsity for one in routed) / len(routed),
        "sparsity_last_half": sum(one.sparsity_last_half for one in routed) / len(routed),
        "recall": _recall(routed),
        "copies_gap_nats": float(copies.mean()),
        "copies_gap_interval": interval(copies),
        "needles": sum(sum(one.needles) for one in routed),
        "needles_by_depth": needles_by_depth(routed),
    }


def needles_by_depth(scored: Sequence[Scored]) -> list[dict[str, float]]:
    """Return the share of answered needles at each depth."""
    by_depth = list(zip(*(one.needles for one in scored), strict=True))
    return [
        {"depth": depth, "found": sum(found) / len(found)}
        for depth, found in zip(depths(len(by_depth)), by_depth, strict=True)
    ]


def _recall(scored: Sequence[Scored]) -> dict[str, Any] | None:
    """Return the attended share of dense attention's mass; None if coverage was not measured."""
    counted = [one.coverage for one in scored if one.coverage is not None]
    if not counted:
        return None
    routed, selectable, attended, total = (
        sum(getattr(one, name) for one in counted)
        for name in ("routed", "selectable", "attended", "total")
    )
    # A difference of equal numbers is not exactly zero.
    selectable = selectable.where(selectable > _ROUNDING * total, torch.nan)
    return {
        "attended": float(attended.sum() / total.sum()),
        "routed": _or_none(routed.sum() / selectable.nansum()),
        "routed_by_layer_and_head": [
            [_or_none(share) for share in heads] for heads in routed / selectable
        ],
    }


def _or_none(share: torch.Tensor) -> float | None:
    """Return a share as a float; None if there was nothing to select from."""
    return float(share) if bool(share.isfinite()) else None


def families(
    samples: Sequence[Sample], answered: Sequence[Answered]
) -> dict[str, dict[str, float]]:
    """Return mean score, mean nats of the right answer and its known share for each family."""
    rows: dict[str, list[tuple[float, float, float]]] = {family: [] for family in FAMILIES}
    for sample, answers in zip(samples, answered, strict=True):
        figures = zip(answers.scores, answers.nats, answers.known, strict=True)
        for task, row in zip(sample.tasks, figures, strict=True):
            rows[task.family].append(row)
    names = ("score", "answer_nats", "answer_known")
    return {
        family: {
            **{name: sum(row[n] for row in found) / len(found) for n, name in enumerate(names)},
            "tasks": len(found),
        }
        for family, found in rows.items()
        if found
    }

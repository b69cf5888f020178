"""Gap against sparsity, as a picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_plot(runs: Sequence[dict[str, Any]], title: str, path: Path) -> list[Path]:
    """Draw the gap of every run over the share of tokens it read, with its interval.

    Args:
        runs: as ``run_quality`` gives them.
        title: over the picture.
        path: where to; ``.png`` and ``.svg`` take the place of its suffix.

    Returns:
        The files that were written.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines: dict[tuple[str, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    for run in runs:
        point = (100 * run["sparsity"], run["gap_nats"], *run["gap_interval"])
        lines[run["router"], run["rule"]].append(point)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (router, rule), points in lines.items():
        read, gap, low, high = zip(*sorted(points), strict=True)
        below = [max(value - least, 0) for value, least in zip(gap, low, strict=True)]
        above = [max(most - value, 0) for value, most in zip(gap, high, strict=True)]
        axes.errorbar(
            read, gap, (below, above), marker="o", capsize=3, label=f"{router}, {rule} rule"
        )
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_xlabel("tokens read, %")
    axes.set_ylabel("nats a token above dense attention")
    axes.set_title(title)
    axes.legend()
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    try:
        for file in written:
            figure.savefig(file, dpi=150)
    finally:
        pyplot.close(figure)
    return written

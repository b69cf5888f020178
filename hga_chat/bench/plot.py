"""Plots gap against sparsity."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_plot(runs: Sequence[dict[str, Any]], title: str, path: Path) -> list[Path]:
    """Plot the gap of every run, with its interval, over the share of tokens it attended to.

    Args:
        runs: ``runs`` of the result of ``run_quality``.
        title: title of the plot.
        path: where to write; its suffix is replaced by ``.png`` and ``.svg``.

    Returns:
        The written files.

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
        attended, gap, low, high = zip(*sorted(points), strict=True)
        below = [max(value - least, 0) for value, least in zip(gap, low, strict=True)]
        above = [max(most - value, 0) for value, most in zip(gap, high, strict=True)]
        axes.errorbar(
            attended, gap, (below, above), marker="o", capsize=3, label=f"{router}, {rule} rule"
        )
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_xlabel("tokens attended, %")
    axes.set_ylabel("nats per token above dense attention")
    axes.set_title(title)
    axes.legend()
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    try:
        for file in written:
            figure.savefig(file, dpi=150)
    finally:
        pyplot.close(figure)
    return written

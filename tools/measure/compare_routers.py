"""Compare many ways of choosing groups with dense attention, over the end of long texts.

Attention is computed in plain torch, layer by layer over a whole text, so that rules without a
kernel can be compared too. Tokens before the routed end are prefilled densely, once for all ways.

    python -m tools.measure.compare_routers prepare samples.jsonl --context 65536 NAME=FILE …
    python -m tools.measure.compare_routers run samples.jsonl results.jsonl [--seconds 240]
    python -m tools.measure.compare_routers show results.jsonl …

The likelihood of a needle or task is that of the right answer's tokens, given all tokens before.
"""

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hga_chat.bench.figures import interval, segments
from hga_chat.models import EMBEDDED_MODEL, find_model
from hga_chat.output import table
from hga_engine.model.load import load_model
from hga_engine.model.rope import for_context, frequencies
from hga_engine.tokenizer.load import load_tokenizer
from tools.measure.routers.forward import Network, Outcome, Text, dense
from tools.measure.routers.routed import Calibration, Routed, Statistics
from tools.measure.routers.rules import Above, Variant
from tools.measure.routers.samples import Sample, make_sample, read_samples, write_samples
from tools.measure.routers.scores import compile_reductions
from tools.measure.routers.variants import variants

LONGEST_BRANCH = 256


def prepare(
    path: Path, model: str, context: int, seeds: Sequence[int], texts: Sequence[str]
) -> None:
    """Write samples of named texts, each a file or a folder of Python sources."""
    named = [text.partition("=") for text in texts]
    if unnamed := [text for text, equals, _ in named if not equals]:
        sys.exit(f"Sources are given as NAME=PATH, not as {unnamed[0]!r}.")
    tokenizer = load_tokenizer(find_model(model))
    contents = [(name, _content(Path(source))) for name, _, source in named]
    write_samples(
        path,
        (make_sample(*one, tokenizer, context, seed) for seed in seeds for one in contents),
    )


def _content(path: Path) -> str:
    if path.is_dir():
        return "\n".join(one.read_text(encoding="utf-8") for one in sorted(path.rglob("*.py")))
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    return path.read_text(encoding="utf-8")


@torch.inference_mode()
def run(options: argparse.Namespace) -> None:
    """Measure, and write a line for each way and text as soon as it is done."""
    began = time.perf_counter()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not options.eager:
        compile_reductions(device)
    samples = list(read_samples(options.samples))[options.skip :][: options.texts]
    weights = load_model(find_model(options.model), torch.bfloat16, None, device)
    longest = max(len(sample.tokens) for sample in samples)
    config = for_context(weights.config, longest)
    network = Network(weights, longest + LONGEST_BRANCH, config)
    chosen = [one for one in variants() if _is_wanted(one.name, options.only)]
    _note(began, f"{len(chosen)} ways, {len(samples)} texts, {device}")
    found: dict[str, Variant] = {}
    with options.results.open("a") as results:
        for sample in samples:
            if time.perf_counter() - began > options.seconds:
                break
            start = len(sample.tokens) - (options.routed or len(sample.tokens) // 2)
            text = Text(sample, 0, device)
            open_ones = [one for one in chosen if one.name not in found]
            calibration = Calibration(open_ones, text, start, frequencies(config))
            whole, kept = network.run(text, calibration.beside(dense(text)), None)
            found |= {one.name: calibration.found(one) for one in open_ones}
            prefix = [(keys[:, :start], values[:, :start]) for keys, values in kept]
            text = Text(sample, start, device)
            _note(began, f"{sample.name}: dense {float(whole.nats[start:].mean()):.4f} nats")
            for one in chosen:
                if time.perf_counter() - began > options.seconds:
                    break
                variant = found[one.name]
                statistics = Statistics(config.num_layers, config.num_kv_heads)
                attend = Routed(variant, text, frequencies(config), statistics)
                began_one = time.perf_counter()
                outcome, _ = network.run(text, attend, prefix)
                row = _row(sample, variant, outcome, whole, statistics, start)
                row["seconds"] = time.perf_counter() - began_one
                results.write(f"{json.dumps(row)}\n")
                results.flush()
                _note(began, f"{one.name}: {row['gap']:+.4f}, {row['sparsity']:.2%}")
    show([options.results])


def _is_wanted(name: str, only: str) -> bool:
    return not only or any(part in name for part in only.split("|"))


def _note(began: float, text: str) -> None:
    print(f"{time.perf_counter() - began:6.1f} s  {text}", file=sys.stderr, flush=True)


def _row(
    sample: Sample,
    variant: Variant,
    routed: Outcome,
    whole: Outcome,
    statistics: Statistics,
    start: int,
) -> dict[str, Any]:
    """Return the figures of one way on one text."""
    gap = routed.nats - whole.nats[start:]
    branches = []
    for number, branch in enumerate(sample.branches):
        nats = routed.branch_nats[number].mean(), whole.branch_nats[number].mean()
        right = routed.branch_right[number], whole.branch_right[number]
        branches.append([branch.kind, *map(float, nats), *right])
    sampled = statistics.sampled.clamp_min(1)
    return {
        "sample": sample.name,
        "variant": variant.name,
        "settings": asdict(variant),
        "threshold": _threshold(variant),
        "gap": float(gap.mean()),
        "segments": segments(gap).tolist(),
        "agreement": float((routed.choices == whole.choices[start:]).double().mean()),
        "dense_nats": float(whole.nats[start:].mean()),
        "sparsity": statistics.sparsity(variant.scorer.group),
        "groups": float(statistics.groups.mean() / statistics.rows),
        "groups_by_layer_and_head": (statistics.groups / statistics.rows).tolist(),
        "missing": float((statistics.missing / sampled).mean()),
        "missing_by_layer_and_head": (statistics.missing / sampled).tolist(),
        "recall": float(1 - statistics.missing.sum() / statistics.selectable.sum().clamp_min(1e-9)),
        "branches": branches,
    }


def _threshold(variant: Variant) -> float | None:
    """Return the least share a group must have, averaged over query heads and scored rows."""
    if not isinstance(variant.rule, Above):
        return None
    return variant.rule.share


def show(paths: Sequence[Path]) -> None:
    """Print a table of the results over all texts."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        for line in path.read_text().splitlines():
            read = json.loads(line)
            rows[read["variant"]].append(read)
    header = (
        *("way", "texts", "threshold", "read", "groups", "gap", "95 %", "same choice"),
        *("mass missing", "recall", "copies", "needle nats", "needles", "task nats", "s"),
    )
    print(table(header, [_line(name, some) for name, some in rows.items()]))


def _line(name: str, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return float(sum(row[key] for row in rows)) / len(rows)

    pooled = torch.tensor([one for row in rows for one in row["segments"]], dtype=torch.float64)
    low, high = interval(pooled)
    branches = [branch for row in rows for branch in row["branches"]]
    needles = [branch for branch in branches if branch[0] == "needle"]
    copies = [branch for branch in branches if branch[0] == "copy"]
    tasks = [branch for branch in branches if branch[0] not in ("needle", "copy")]
    return (
        name,
        str(len(rows)),
        "" if rows[0]["threshold"] is None else f"{rows[0]['threshold']:.2e}",
        f"{mean('sparsity'):.2%}",
        f"{mean('groups'):.1f}",
        f"{mean('gap'):+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        f"{mean('agreement'):.1%}",
        f"{mean('missing'):.2%}",
        f"{mean('recall'):.1%}",
        _gap(copies),
        _gap(needles),
        f"{sum(branch[3] for branch in needles)}, dense {sum(branch[4] for branch in needles)}",
        _gap(tasks),
        f"{mean('seconds'):.1f}",
    )


def _gap(branches: Sequence[Sequence[Any]]) -> str:
    """Return the mean nats above dense attention."""
    if not branches:
        return ""
    return f"{sum(branch[1] - branch[2] for branch in branches) / len(branches):+.4f}"


def main() -> None:
    """Run the command that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("prepare")
    one.add_argument("samples", type=Path)
    one.add_argument("sources", nargs="+", metavar="NAME=PATH")
    one.add_argument("--context", type=int, default=65_536)
    one.add_argument("--seeds", default="0")
    one.set_defaults(
        run=lambda o: prepare(
            o.samples, o.model, o.context, [int(s) for s in o.seeds.split(",")], o.sources
        )
    )
    one = commands.add_parser("run")
    one.add_argument("samples", type=Path)
    one.add_argument("results", type=Path)
    one.add_argument("--seconds", type=float, default=240, help="begin no other way afterwards")
    one.add_argument("--texts", type=int, default=1_000, help="how many of the samples")
    one.add_argument("--skip", type=int, default=0, help="samples")
    one.add_argument("--routed", type=int, help="tokens at the end that are routed; default: half")
    one.add_argument("--only", default="", help="ways with any of these in their names, | between")
    one.add_argument("--device")
    one.add_argument("--eager", action="store_true", help="compile nothing")
    one.set_defaults(run=run)
    one = commands.add_parser("show")
    one.add_argument("results", type=Path, nargs="+")
    one.set_defaults(run=lambda o: show(o.results))
    for one in (commands.choices["prepare"], commands.choices["run"]):
        one.add_argument("--model", default=EMBEDDED_MODEL, help="of the catalogue, or a file")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

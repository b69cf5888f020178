"""Launches of the selection's kernels for blocks, and the forms in which all are built."""

from hga_kernels.arguments import CHUNK
from hga_kernels.gpu.build import Build, Launch, launches_for
from hga_kernels.gpu.launch import next_power_of_2
from hga_kernels.gpu.select import step as selection_step
from hga_kernels.gpu.select.block import (
    CENTRE_TILE,
    choose_kernel,
    quantise_rows_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    weigh_kernel,
)
from hga_kernels.reference.selection import STRATA

MIN_BYTES = 16
"""Bytes that a quarter of a query or a token is padded to with zeros."""


def _score_launch(warps: int, registers: int = 0) -> Launch:
    return Launch({"SPAN": 32}, warps=warps, stages=3, registers=registers)


QUANTISE_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
CENTRE_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
WEIGH_LAUNCHES = {90: Launch({"BLOCK": 64}, warps=8), 120: Launch({"BLOCK": 64}, warps=8)}
CHOOSE_LAUNCHES: dict[int, dict[int, Launch]] = {
    2048: {90: Launch({}, warps=4), 120: Launch({}, warps=4)},
    4096: {90: Launch({}, warps=8), 120: Launch({}, warps=8)},
    2**14: {90: Launch({}, warps=16), 120: Launch({}, warps=16)},
}
"""By the largest number of groups in a stratum that each is for."""
SCORE_LAUNCHES: dict[int, dict[int, Launch]] = {
    16: {90: _score_launch(1), 120: _score_launch(1)},
    32: {90: _score_launch(1), 120: _score_launch(1)},
    64: {90: _score_launch(4), 120: _score_launch(4)},
    128: {90: _score_launch(4), 120: _score_launch(4)},
}
"""By query rows of a unit."""

CANDIDATES = {
    "score_groups 128": tuple(
        Launch({"SPAN": span}, warps, stages, registers)
        for span, warps, stages, registers in (
            (32, 4, 1, 0),
            (32, 4, 2, 0),
            (32, 4, 3, 0),
            (32, 4, 4, 0),
            (32, 4, 3, 128),
            (32, 4, 3, 168),
            (64, 4, 3, 0),
            (32, 8, 3, 0),
            (64, 8, 3, 0),
        )
    ),
    "score_groups 16": tuple(
        Launch({"SPAN": span}, warps, stages)
        for span, warps, stages in ((32, 1, 3), (64, 1, 3), (32, 1, 1), (32, 2, 3), (32, 4, 3))
    ),
    "weigh": tuple(
        Launch({"BLOCK": block}, warps=warps)
        for block, warps in ((32, 4), (64, 4), (128, 4), (128, 8), (256, 16))
    ),
    "choose": tuple(Launch({}, warps=warps) for warps in (4, 8, 16, 32)),
}


def unit_rows_for(rows: int) -> int:
    """Return the query rows of a unit, given those of a block."""
    return min(max(int(next_power_of_2(rows)), 16), 128)


_COUNTS = ("heads", "tiles", "rows", "head_rows", "block_rows")
_SCORED = {"peaks": "*fp32", "totals": "*fp32", "end_chunks": "*i32"}
_WEIGHED = {
    **dict.fromkeys(("shares", "totals"), "*fp32"),
    "end_chunks": "*i32",
    **dict.fromkeys(("heads", "tiles", "rows", "first_chunk", "runs", "all_groups"), "i32"),
}


def _builds(dim: int, rows: int, model: str) -> tuple[Build, ...]:
    quarter = dim // 4
    counts = dict.fromkeys(_COUNTS, "i32")
    quantise = Build(
        f"quantise_rows {model}",
        quantise_rows_kernel,
        {
            "queries": "*bf16",
            "ints": "*i8",
            "starts": "*i32",
            "steps": "*fp32",
            "scale": "fp32",
            **counts,
        },
        QUANTISE_LAUNCHES,
        {"ROWS": unit_rows_for(rows), "QUARTER": quarter, "WIDTH": max(quarter, MIN_BYTES)},
    )
    centres = Build(
        f"score_chunks {model}",
        score_chunks_kernel,
        {
            "queries": "*bf16",
            "summaries": "*bf16",
            **dict.fromkeys(("centres", "peaks"), "*fp32"),
            "end_chunks": "*i32",
            "scale": "fp32",
            **counts,
            **dict.fromkeys(("first_chunk", "capacity", "runs"), "i32"),
        },
        CENTRE_LAUNCHES,
        {"ROWS": unit_rows_for(rows), "DIM": dim, "TILE": CENTRE_TILE},
    )
    grouped = (build for group in (16, 2) for build in _group_builds(dim, rows, model, group))
    return (quantise, centres, *grouped)


def _group_builds(dim: int, rows: int, model: str, group: int) -> tuple[Build, ...]:
    scores = Build(
        f"score_groups {model} {group}",
        score_groups_kernel,
        {
            "ints": "*i8",
            "starts": "*i32",
            "steps": "*fp32",
            "centres": "*fp32",
            "codes": "*u8",
            "scales": "*bf16",
            "sums": "*bf16",
            **_SCORED,
            **dict.fromkeys(("heads", "tiles", "rows", "first_chunk", "capacity"), "i32"),
            **dict.fromkeys(("runs", "last_chunk", "spans"), "i32"),
            "window_lse": "*fp32",
        },
        SCORE_LAUNCHES[unit_rows_for(rows)],
        {
            "ROWS": unit_rows_for(rows),
            "GROUP": group,
            "QUARTER": dim // 4,
            "WIDTH": max(dim // 4, MIN_BYTES),
            "TILE": CENTRE_TILE,
            "RUNS": 16,
            "PACKED": True,
            "WITH_WINDOW": True,
        },
    )
    weighing = Build(
        f"weigh groups {model} {group}",
        weigh_kernel,
        {"values": "*bf16", **_WEIGHED},
        WEIGH_LAUNCHES,
        {"ROWS": unit_rows_for(rows), "RUNS": 16, "PER_CHUNK": CHUNK // group},
    )
    return (scores, weighing)


def _choose_build(kind: str, count: int, budget: int, per_chunk: int) -> Build:
    numbers = ("heads", "first_chunk", "all_groups", "budget", "first_head")
    return Build(
        f"choose {kind}",
        choose_kernel,
        {
            "shares": "*fp32",
            "end_chunks": "*i32",
            "chosen": "*i32",
            "importance": "*fp32",
            **dict.fromkeys(numbers, "i32"),
            "expected": "fp32",
        },
        launches_for(CHOOSE_LAUNCHES, count),
        {"COUNT": count, "BUDGET": budget, "PER_CHUNK": per_chunk},
    )


def _step_builds(dim: int, rows: int, model: str, group: int) -> tuple[Build, ...]:
    padded = max(int(next_power_of_2(rows)), selection_step.MIN_ROWS)
    sizes = {"ROWS": padded, "GROUP": group, "CHUNKS": 8, "RUNS": 128, "PIECES": 1}
    score = Build(
        f"score_step {model} {group}",
        selection_step.score_step_kernel,
        {
            "queries": "*bf16",
            "summaries": "*bf16",
            "codes": "*u8",
            "scales": "*bf16",
            **_SCORED,
            "sums": "*bf16",
            "scale": "fp32",
            **dict.fromkeys(("rows", "query_stride", "first_chunk", "capacity", "runs"), "i32"),
            "position_at": "*i32",
            "resident": "*bf16",
            "window_lse": "*fp32",
            "resident_slots": "i32",
        },
        selection_step.SCORE_LAUNCHES,
        {
            "ROWS": padded,
            "HEADS": rows,
            "SINKS": CHUNK // group,
            "GROUP": group,
            "QUARTER": dim // 4,
            "WIDTH": max(dim // 4, 32),
            "PACKED": True,
            "OVERLAPS": True,
            "INDEX_READY": True,
        },
    )
    choose = Build(
        f"choose_step {model} {group}",
        selection_step.choose_step_kernel,
        {
            **_SCORED,
            "sums": "*bf16",
            "window_lse": "*fp32",
            **dict.fromkeys(("rows", "first_chunk", "runs"), "i32"),
            "groups": "*i32",
            "importance": "*fp32",
            **dict.fromkeys(("slots", "table", "owner", "stamps", "step_at"), "*i32"),
            "counts": "*i64",
            **dict.fromkeys(("budget", "cache_slots", "max_groups", "pieces", "first_head"), "i32"),
            "expected": "fp32",
        },
        launches_for(selection_step.CHOOSE_LAUNCHES, 128 * 8 * (CHUNK // group) // STRATA),
        {**sizes, "OVERLAPS": True, "BUDGET": 4096 // group, "ROOM": 512 // group, "SLOTS": 1024},
    )
    return (score, choose)


BUILDS = (
    *_builds(128, 128, "qwen3-30b-a3b"),
    *_builds(64, 48, "smollm2-64k"),
    *_builds(128, 8, "qwen3-30b-a3b by token"),
    _choose_build("groups 16", 1024, 256, 4),
    _choose_build("groups 2", 2048, 4096, 32),
    *_step_builds(128, 8, "qwen3-30b-a3b", 4),
    *_step_builds(128, 8, "qwen3-30b-a3b", 2),
    *_step_builds(64, 3, "smollm2-64k", 4),
    *_step_builds(64, 3, "smollm2-64k", 2),
)
"""A GPU draws groups of 16 in prefill and of 4 in decode; groups of 2 are a CPU's."""

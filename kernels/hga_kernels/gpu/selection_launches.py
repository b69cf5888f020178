"""How the kernels of the selection for blocks are launched, and the forms they are built in."""

import triton

from hga_kernels.gpu.build import Build, Launch
from hga_kernels.gpu.selection_block import (
    CENTRE_TILE,
    choose_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    turn_rows_kernel,
    weigh_kernel,
)

LEAST_BYTES = 16
"""Of a quarter of a query or a token, padded with zeros."""
_PER_CHUNK = 4


def _score_launch(warps: int, registers: int = 0) -> Launch:
    return Launch({"SPAN": 32}, warps=warps, stages=3, registers=registers)


TURN_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
CENTRE_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
WEIGH_LAUNCHES = {90: Launch({"BLOCK": 64}, warps=8), 120: Launch({"BLOCK": 64}, warps=8)}
CHOOSE_LAUNCHES = {90: Launch({}, warps=8), 120: Launch({}, warps=8)}
SCORE_LAUNCHES: dict[int, dict[int, Launch]] = {
    16: {90: _score_launch(1), 120: _score_launch(1)},
    32: {90: _score_launch(1), 120: _score_launch(1)},
    64: {90: _score_launch(4), 120: _score_launch(4)},
    128: {90: _score_launch(4), 120: _score_launch(4)},
}
"""By rows of a unit."""

CANDIDATES = {
    "score_groups 128": tuple(
        Launch({"SPAN": span}, warps, stages, registers)
        for span, warps, stages, registers in (
            (32, 4, 1, 0),
            (32, 4, 2, 0),
            (32, 4, 3, 0),
            (32, 4, 4, 0),
            (32, 4, 3, 128),
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
        for block, warps in ((32, 4), (64, 4), (128, 4), (128, 8))
    ),
    "choose": tuple(Launch({}, warps=warps) for warps in (4, 8, 16)),
}


def unit_rows_for(rows: int) -> int:
    """Rows of a unit, where a block has ``rows``."""
    return min(max(int(triton.next_power_of_2(rows)), 16), 128)


_COUNTS = ("heads", "tiles", "rows", "head_rows", "block_rows")


def _builds(dim: int, rows: int, model: str) -> tuple[Build, ...]:
    quarter = dim // 4
    counts = dict.fromkeys(_COUNTS, "i32")
    scored = {"peaks": "*fp32", "totals": "*fp32", "end_chunks": "*i32"}
    unit = {"ROWS": unit_rows_for(rows), "QUARTER": quarter}
    runs = {"TILE": CENTRE_TILE, "RUNS": 16}
    turn = Build(
        f"turn_rows {model}",
        turn_rows_kernel,
        {
            "queries": "*bf16",
            "ints": "*i8",
            "starts": "*i32",
            "steps": "*fp32",
            "scale": "fp32",
            **counts,
        },
        TURN_LAUNCHES,
        {**unit, "WIDTH": max(quarter, LEAST_BYTES)},
    )
    centres = Build(
        f"score_chunks {model}",
        score_chunks_kernel,
        {
            "queries": "*bf16",
            "summaries": "*bf16",
            "centres": "*fp32",
            "scale": "fp32",
            **scored,
            **counts,
            **dict.fromkeys(("first_chunk", "capacity", "runs"), "i32"),
        },
        CENTRE_LAUNCHES,
        {"ROWS": unit_rows_for(rows), "DIM": dim, "TILE": CENTRE_TILE},
    )
    scores = [
        Build(
            f"score_groups {kind} {model}",
            score_groups_kernel,
            {
                "ints": "*i8",
                "starts": "*i32",
                "steps": "*fp32",
                "centres": "*fp32",
                "codes": "*u8",
                "scales": "*bf16",
                "listed": "*i32",
                "sums": "*bf16",
                **scored,
                **dict.fromkeys(("heads", "tiles", "rows", "first_chunk", "capacity"), "i32"),
                **dict.fromkeys(("runs", "places", "spans"), "i32"),
                "always": "*fp32",
            },
            SCORE_LAUNCHES[unit_rows_for(rows)],
            {
                **unit,
                **runs,
                "WIDTH": max(quarter, LEAST_BYTES),
                "LISTED": kind == "kept",
                "PACKED": True,
                "ALWAYS": True,
            },
        )
        for kind in ("all", "kept")
    ]
    weighing = [
        Build(
            f"weigh {kind} {model}",
            weigh_kernel,
            {
                "values": "*fp32" if kind == "chunks" else "*bf16",
                "masses": "*fp32",
                **scored,
                **dict.fromkeys(("heads", "tiles", "rows", "first_chunk"), "i32"),
                **dict.fromkeys(("runs", "places", "held_places"), "i32"),
            },
            WEIGH_LAUNCHES,
            {
                "ROWS": unit_rows_for(rows),
                "RUNS": 16,
                "PER_CHUNK": 1 if kind == "chunks" else _PER_CHUNK,
                "CENTRES": kind == "chunks",
                "LISTED": kind == "groups",
            },
        )
        for kind in ("chunks", "groups")
    ]
    return (turn, centres, *scores, *weighing)


def _choose_build(kind: str, places: int, budget: int, per_chunk: int) -> Build:
    numbers = ("heads", "first_chunk", "places", "budget", "first_head")
    return Build(
        f"choose {kind}",
        choose_kernel,
        {
            "masses": "*fp32",
            "end_chunks": "*i32",
            "listed": "*i32",
            "chosen": "*i32",
            "multiples": "*fp32",
            **dict.fromkeys(numbers, "i32"),
        },
        CHOOSE_LAUNCHES,
        {
            "PLACES": places,
            "BUDGET": budget,
            "PER_CHUNK": per_chunk,
            "LISTED": per_chunk > 1,
            "DRAWN": per_chunk > 1,
        },
    )


BUILDS = (
    *_builds(128, 128, "qwen3-30b-a3b"),
    *_builds(64, 48, "smollm2-64k"),
    *_builds(128, 8, "qwen3-30b-a3b by token"),
    _choose_build("chunks", 1024, 512, 1),
    _choose_build("groups", 2048, 128, _PER_CHUNK),
)

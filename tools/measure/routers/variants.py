"""The ways of attending that are compared."""

from dataclasses import replace
from typing import TypedDict

from tools.measure.routers.rules import Above, Drawn, Top, TopAndEven, Until, Variant
from tools.measure.routers.scores import Scorer

_PAIRS = Scorer(reduce="pairs")
_SUM = Scorer()
_CAP = 256


class _Window(TypedDict):
    """Tokens that are always attended, at the beginning and before the query."""

    sinks: int
    recent: int


_NARROW: _Window = {"sinks": 64, "recent": 256}
_NARROWEST: _Window = {"sinks": 64, "recent": 128}
_OPEN_CHUNK: _Window = {"sinks": 64, "recent": 0}


def variants() -> list[Variant]:
    """Return all variants, the most informative first."""
    decode, prefill = _decode(), _prefill()
    return [*decode[:3], *prefill[:4], *decode[3:], *prefill[4:]]


def _decode() -> list[Variant]:
    above = Variant("share of all, cap 256", Above(0, _CAP), _SUM, of_all=True)
    drawn = Variant(
        "today: at most 2048 drawn of 2 tokens",
        Drawn(2048),
        replace(_PAIRS, group=2),
        of_all=True,
        **_OPEN_CHUNK,
    )
    return [
        drawn,
        replace(
            drawn,
            name="today on a GPU: at most 1024 drawn of 4 tokens",
            rule=Drawn(1024),
            scorer=replace(_PAIRS, group=4),
        ),
        Variant(
            "beside today: paper, 21 chunks, 82 groups",
            Top(82),
            Scorer("means", kept_chunks=21),
            **_OPEN_CHUNK,
        ),
        Variant("beside today: bounds, 82 groups", Top(82), Scorer("bounds"), **_OPEN_CHUNK),
        replace(
            drawn,
            name="beside today: vAttention, 328 heaviest and 328 others of 2 tokens",
            rule=TopAndEven(328, 328),
        ),
        *(
            replace(
                drawn,
                name=f"at most {4096 // size} drawn of {size} tokens",
                rule=Drawn(4096 // size),
                scorer=replace(_PAIRS, group=size),
            )
            for size in (8, 16)
        ),
        replace(drawn, name="4 bits, today", scorer=Scorer(levels=16, reduce="pairs", group=2)),
        replace(drawn, name="oracle, today", scorer=Scorer("exact", group=2)),
        Variant("pairs, 47 groups", Top(47), _PAIRS),
        Variant("sum, 47 groups", Top(47), _SUM),
        above,
        Variant("share of choosable, cap 256", Above(0, _CAP), _SUM),
        replace(above, name="share of all, cap 256, windows 64/256", **_NARROW),
        replace(above, name="share of all, cap 256, windows 64/128", **_NARROWEST),
        Variant("oracle, 47 groups", Top(47), Scorer("exact")),
        replace(above, name="oracle, share of all, cap 256", scorer=Scorer("exact")),
        replace(above, name="windows 64/128, chosen raised", tail="chosen", **_NARROWEST),
        replace(above, name="windows 64/128, cap 128", rule=Above(0, 128), **_NARROWEST),
        Variant("windows 64/128, 59 groups", Top(59), _SUM, **_NARROWEST),
        Variant("until, cap 256", Until(0, _CAP), _SUM),
        replace(above, name="share of all, cap 128", rule=Above(0, 128)),
        replace(above, name="share of all, cap 512", rule=Above(0, 512)),
        replace(above, name="share of all, cap 256, floor 8", rule=Above(0, _CAP, 8)),
        replace(above, name="share of all, cap 256, max of heads", combine="max"),
        replace(above, name="share of all, cap 256, pairs", scorer=_PAIRS),
        replace(above, name="share of all, cap 256, group max", scorer=Scorer(reduce="max")),
        replace(above, name="share of all, cap 256, tail of all", tail="all"),
        replace(above, name="share of all, cap 256, tail of chunks", tail="chunk"),
        replace(above, name="share of all, cap 256, tail of groups", tail="group"),
        replace(above, name="share of all, cap 256, chosen raised", tail="chosen"),
        replace(above, name="share of all, cap 256, values", scorer=Scorer(values=True)),
        replace(above, name="share of all, cap 256, 3 bits", scorer=Scorer(levels=8)),
        replace(above, name="share of all, cap 256, 4 bits", scorer=Scorer(levels=16)),
        replace(above, name="share of all, cap 256, 1.6 bits", scorer=Scorer(levels=3)),
        replace(above, name="share of all, cap 256, 1 bit", scorer=Scorer(levels=2)),
        replace(above, name="share of all, cap 256, balanced", scorer=Scorer(balance="diagonal")),
        replace(above, name="share of all, cap 256, joint", scorer=Scorer(balance="joint")),
        replace(above, name="share of all, cap 256, group centre", scorer=Scorer(centre="group")),
        replace(above, name="share of all, cap 256, group scale", scorer=Scorer(scale="group")),
        replace(above, name="share of all, cap 256, gauss", scorer=Scorer(spacing="gauss")),
        replace(
            above,
            name="share of all, cap 512, groups of 8",
            rule=Above(0, 512),
            scorer=Scorer(group=8),
        ),
        replace(
            above,
            name="oracle, share of all, cap 256, windows 64/256",
            scorer=Scorer("exact"),
            **_NARROW,
        ),
        Variant("group means, 47 groups", Top(47), Scorer("means")),
        replace(above, name="group means, share of all", scorer=Scorer("means")),
        replace(above, name="bounds, share of choosable", scorer=Scorer("bounds"), of_all=False),
        Variant("sum, 67 groups, windows 64/256", Top(67), _SUM, **_NARROW),
        replace(above, name="share of all, 2%", aim=0.02),
        replace(above, name="share of all, 2.5%", aim=0.025),
        replace(above, name="share of all, 4%", aim=0.04),
        replace(above, name="share of all, 5%", aim=0.05),
        Variant("sum, 128 groups", Top(128), _SUM),
        Variant("everything", Top(65_536), _SUM),
    ]


def _prefill() -> list[Variant]:
    kept = replace(_PAIRS, kept_chunks=512)
    blocks_of_16 = Variant("", Top(136), block=16, stride=1, **_OPEN_CHUNK)
    finest = replace(
        blocks_of_16,
        name="prefill, today: at most 3584 drawn of 2 tokens",
        rule=Drawn(3584),
        scorer=replace(_PAIRS, group=2),
        of_all=True,
    )
    today = replace(
        finest,
        name="prefill, today on a GPU: at most 256 drawn of 16 tokens",
        rule=Drawn(256),
        scorer=_PAIRS,
        block=64,
        stride=4,
    )
    heaviest = Variant("prefill, pairs, 128 groups", Top(128), kept, block=64)
    above = Variant("prefill, share of all", Above(0, 512), _SUM, of_all=True, block=64, aim=0.05)
    return [
        finest,
        replace(
            blocks_of_16,
            name="prefill, beside today: paper, 35 chunks",
            scorer=Scorer("means", kept_chunks=35),
        ),
        replace(
            blocks_of_16,
            name="prefill, beside today: bounds, 136 groups",
            scorer=Scorer("bounds"),
        ),
        today,
        replace(finest, name="prefill, at most 3584 of a pool of 1024", pool=1024),
        replace(today, name="prefill, today on a GPU, every second query scored", stride=2),
        heaviest,
        replace(heaviest, name="prefill, sum, 107 groups", rule=Top(107), scorer=_SUM),
        above,
        replace(above, name="prefill, share of all, max", combine="max"),
        replace(above, name="prefill, share of all, max, windows 64/256", combine="max", **_NARROW),
        replace(heaviest, name="prefill, windows 64/128, 128 groups", **_NARROWEST),
        replace(above, name="prefill, share of all, windows 64/128", **_NARROWEST),
        replace(above, name="prefill, share of all, every 8th", stride=8),
        replace(above, name="prefill, share of all, every 2nd", stride=2),
        replace(above, name="prefill, share of all, oracle", scorer=Scorer("exact")),
        replace(above, name="prefill, share of all, 4%", aim=0.04),
        replace(above, name="prefill, share of all, 3%", aim=0.03),
    ]

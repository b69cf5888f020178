"""Linear layers, experts and sampling at the geometry of Qwen3-30B-A3B.

Weights of several layers are used in turn, so that they do not fit the GPU's caches.
"""

import itertools
from collections.abc import Callable, Iterator

import torch

from hga_kernels import Angles, HeadWeights, reference
from hga_kernels.gpu import build, sampling
from hga_kernels.gpu.linear import expert_gemv, experts, gemm, gemv, linear, norm
from hga_kernels.weights import BlockScaled, Weight
from tools.measure.gpu_times import Case, with_launch, with_value

COPIES = 8
HIDDEN, QKV, ATTENDED, VOCAB = 2048, 5120, 4096, 151_936
HEADS, KV_HEADS, DIM = 32, 4, 128
EXPERTS, CHOSEN, WIDTH = 128, 8, 768
EXPERT_BYTES = 3 * WIDTH * HIDDEN
SLICE, APPENDED = 4096, 64
EPS = 1e-6


def cases(device: torch.device) -> Iterator[Case]:
    """Everything this part is timed by."""
    yield from _decode(device)
    yield _lm_head(device)
    yield from _sampling(device)
    for rows in (SLICE, APPENDED):
        yield from _prefill(device, rows)
    layers = [_expert_layer(device) for _ in range(COPIES)]
    for rows in (1, APPENDED, SLICE):
        yield _experts(layers, device, rows)
    yield from _expert_parts(layers, device)
    yield _layer(layers, device)
    yield from (_gate(device, rows) for rows in (APPENDED, SLICE))


def candidates(device: torch.device) -> Iterator[Case]:
    """The launches to choose from."""
    layers = [_expert_layer(device) for _ in range(COPIES)]
    [qkv, output] = list(_decode(device))[:2]
    [gate, gated, mixed] = _expert_parts(layers, device)
    for tables, launches, cases_of in (
        (
            gemv.CANDIDATES,
            gemv.LAUNCHES,
            {"fp8": qkv, "fp8_deep": output, "bf16": _lm_head(device)},
        ),
        (
            expert_gemv.CANDIDATES,
            expert_gemv.LAUNCHES,
            {"gate": gate, "gated": gated, "mixed": mixed},
        ),
    ):
        for kind, case in cases_of.items():
            yield from (with_launch(case, launches[kind], launch) for launch in tables[kind])
    for case in (_layer(layers, device), qkv, output, gate, gated, mixed):
        yield with_value(case, f"{case.name}, kernels one by one", build.OVERLAP, False)
    many = {"fp8": list(_prefill(device, SLICE))[:2], "grouped": [_experts(layers, device, SLICE)]}
    many["narrow"] = [_gate(device, SLICE)]
    many["narrow_few"] = [_gate(device, APPENDED)]
    many["grouped_few"] = [_experts(layers, device, APPENDED)]
    for kind, timed in many.items():
        for launch in gemm.CANDIDATES[kind]:
            yield from (with_launch(case, gemm.LAUNCHES[kind], launch) for case in timed)
    for launch in gemm.CANDIDATES["quantized"]:
        for case in (*many["fp8"], *many["grouped"]):
            yield with_launch(_quantized(case), gemm.LAUNCHES["quantized"], launch)


def _quantized(case: Case) -> Case:
    return with_value(case, f"{case.name}, rows in e4m3", gemm.QUANTIZE, True)


def random_rows(device: torch.device, *shape: int) -> torch.Tensor:
    """Return normal bf16 numbers."""
    return torch.randn(shape, device=device).bfloat16()


def _scaled(device: torch.device, *shape: int) -> BlockScaled:
    values = (torch.randn(shape, device=device) * 100).clamp(-448, 448).to(torch.float8_e4m3fn)
    blocks = (*shape[:-2], -(-shape[-2] // 128), -(-shape[-1] // 128))
    return BlockScaled(values, (torch.rand(blocks, device=device) + 0.5) * shape[-1] ** -0.5 / 100)


def _wide(weight: Weight) -> torch.Tensor:
    return weight.dequantize(torch.float32) if isinstance(weight, BlockScaled) else weight.float()


def error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    """Return the relative error of a result."""
    assert found is not None
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def in_turn(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """Return a function that calls them one after the other."""
    turns = itertools.cycle(calls)
    return lambda: next(turns)()


def _decode(device: torch.device) -> Iterator[Case]:
    hidden, attended, scale = (
        random_rows(device, 1, HIDDEN),
        random_rows(device, 1, ATTENDED),
        random_rows(device, HIDDEN),
    )
    qkv = [_scaled(device, QKV, HIDDEN) for _ in range(COPIES)]
    output = [_scaled(device, HIDDEN, ATTENDED) for _ in range(COPIES)]
    normed = reference.rms_norm(hidden, scale, EPS).float()
    yield Case(
        "qkv, 1 row",
        in_turn([lambda w=w: linear.norm_linear(hidden, scale, EPS, w) for w in qkv]),
        QKV * HIDDEN,
        check=lambda: error(
            linear.norm_linear(hidden, scale, EPS, qkv[0]), normed @ _wide(qkv[0]).T
        ),
    )
    yield Case(
        "output with residual, 1 row",
        in_turn([lambda w=w: linear.linear(attended, w, residual=hidden) for w in output]),
        ATTENDED * HIDDEN,
        check=lambda: error(
            linear.linear(attended, output[0], residual=hidden),
            attended.float() @ _wide(output[0]).T + hidden.float(),
        ),
    )
    for rows in (1, SLICE):
        heads, angles = (
            random_rows(device, rows, QKV),
            torch.rand(rows, DIM // 2, device=device) * 7,
        )
        weights = HeadWeights(random_rows(device, DIM), random_rows(device, DIM), EPS)
        arguments = (heads, weights, Angles(angles.cos(), angles.sin()), HEADS, KV_HEADS)
        yield Case(
            f"split_heads, {rows} rows",
            lambda a=arguments: norm.split_heads(*a),
            4 * heads.numel(),
            check=lambda a=arguments: error(norm.split_heads(*a)[0], reference.split_heads(*a)[0]),
        )


def _lm_head(device: torch.device) -> Case:
    # Larger than any cache: one will do.
    weight, hidden, scale = (
        random_rows(device, VOCAB, HIDDEN),
        random_rows(device, 1, HIDDEN),
        random_rows(device, HIDDEN),
    )
    normed = reference.rms_norm(hidden, scale, EPS).float()
    return Case(
        "lm_head, 1 row",
        lambda: linear.norm_linear(hidden, scale, EPS, weight, torch.float32),
        weight.numel() * 2,
        check=lambda: error(
            linear.norm_linear(hidden, scale, EPS, weight, torch.float32), normed @ weight.float().T
        ),
    )


def _sampling(device: torch.device) -> Iterator[Case]:
    logits = torch.randn(1, VOCAB, device=device) * 3
    seed, step = (torch.tensor([number], device=device) for number in (7, 3))
    for name, temperature, top_p, top_k in (
        ("greedy", 0.0, 1.0, 0),
        ("temperature alone", 1.0, 1.0, 0),
        ("top_p 0.9", 0.8, 0.9, 0),
        ("top_k 20, top_p 0.8", 0.7, 0.8, 20),
    ):
        settings = torch.tensor([temperature, top_p], device=device)
        limit = torch.tensor([top_k], dtype=torch.int32, device=device)
        arguments = (logits, settings, limit, seed, step)

        def check(arguments: tuple[torch.Tensor, ...] = arguments) -> float:
            token = sampling.sample(*arguments)
            if arguments[1][0] == 0:
                return float(token != arguments[0].argmax())
            return float(~reference.nucleus(*arguments[:3])[0, token])

        yield Case(f"sample, {name}", lambda a=arguments: sampling.sample(*a), VOCAB * 4, 0, check)


def _prefill(device: torch.device, rows: int) -> Iterator[Case]:
    hidden, attended, scale = (
        random_rows(device, rows, HIDDEN),
        random_rows(device, rows, ATTENDED),
        random_rows(device, HIDDEN),
    )
    qkv = [_scaled(device, QKV, HIDDEN) for _ in range(COPIES)]
    output = [_scaled(device, HIDDEN, ATTENDED) for _ in range(COPIES)]
    yield Case(
        f"qkv, {rows} rows",
        in_turn([lambda w=w: linear.norm_linear(hidden, scale, EPS, w) for w in qkv]),
        QKV * HIDDEN,
        2 * rows * QKV * HIDDEN,
        lambda: error(
            linear.norm_linear(hidden, scale, EPS, qkv[0]),
            reference.rms_norm(hidden, scale, EPS).float() @ _wide(qkv[0]).T,
        ),
    )
    yield Case(
        f"output with residual, {rows} rows",
        in_turn([lambda w=w: linear.linear(attended, w, residual=hidden) for w in output]),
        ATTENDED * HIDDEN,
        2 * rows * ATTENDED * HIDDEN,
        lambda: error(
            linear.linear(attended, output[0], residual=hidden),
            attended.float() @ _wide(output[0]).T + hidden.float(),
        ),
    )


ExpertLayer = tuple[torch.Tensor, float, torch.Tensor, BlockScaled, BlockScaled]


def _expert_layer(device: torch.device) -> ExpertLayer:
    return (
        random_rows(device, HIDDEN),
        EPS,
        random_rows(device, EXPERTS, HIDDEN) * HIDDEN**-0.5,
        _scaled(device, EXPERTS, 2 * WIDTH, HIDDEN),
        _scaled(device, EXPERTS, HIDDEN, WIDTH),
    )


def _experts(layers: list[ExpertLayer], device: torch.device, rows: int) -> Case:
    hidden = random_rows(device, rows, HIDDEN)

    def check() -> float:
        norm_weight, eps, gate, gate_up, down = layers[0]
        # The residual would hide what is wrong with the mixture.
        found = experts.experts(hidden, *layers[0], CHOSEN, True).float() - hidden.float()
        wide = (norm_weight.float(), eps, gate.float(), gate_up, down)
        expected = reference.experts(hidden.float(), *wide, CHOSEN, True) - hidden.float()
        return error(found, expected)

    return Case(
        f"experts, {rows} rows",
        in_turn([lambda a=a: experts.experts(hidden, *a, CHOSEN, True) for a in layers]),
        min(rows * CHOSEN, EXPERTS) * EXPERT_BYTES,
        2 * rows * CHOSEN * EXPERT_BYTES,
        check,
    )


def _expert_parts(layers: list[ExpertLayer], device: torch.device) -> Iterator[Case]:
    """The three kernels of a single row apart."""
    hidden = random_rows(device, 1, HIDDEN)

    def gate(layer: ExpertLayer) -> expert_gemv.Route:
        return expert_gemv.gate(hidden, *layer[:3], CHOSEN, True)

    routes = [gate(layer) for layer in layers]
    gated = [
        expert_gemv.gated_gemv(r.normed, a[3], route=r) for r, a in zip(routes, layers, strict=True)
    ]
    yield Case(
        "expert gate, 1 row",
        in_turn([lambda a=a: gate(a) for a in layers]),
        EXPERTS * HIDDEN * 2,
    )
    yield Case(
        "gate_up of 8 experts, 1 row",
        in_turn(
            [
                lambda r=r, a=a: expert_gemv.gated_gemv(r.normed, a[3], route=r)
                for r, a in zip(routes, layers, strict=True)
            ]
        ),
        CHOSEN * EXPERT_BYTES * 2 // 3,
    )
    yield Case(
        "down of 8 experts, 1 row",
        in_turn(
            [
                lambda g=g, r=r, a=a: expert_gemv.mixed_gemv(g, r, a[4], hidden)
                for g, r, a in zip(gated, routes, layers, strict=True)
            ]
        ),
        CHOSEN * EXPERT_BYTES // 3,
    )


def _gate(device: torch.device, rows: int) -> Case:
    hidden, weight = random_rows(device, rows, HIDDEN), random_rows(device, EXPERTS, HIDDEN)
    return Case(
        f"expert gate, {rows} rows",
        lambda: linear.linear(hidden, weight, torch.float32),
        2 * EXPERTS * HIDDEN,
        2 * rows * EXPERTS * HIDDEN,
        lambda: error(
            linear.linear(hidden, weight, torch.float32), hidden.float() @ weight.float().T
        ),
    )


def _layer(layers: list[ExpertLayer], device: torch.device) -> Case:
    """All products of a layer, one after the other as in decoding, without attention."""
    hidden, attended = random_rows(device, 1, HIDDEN), random_rows(device, 1, ATTENDED)
    qkv = [_scaled(device, QKV, HIDDEN) for _ in layers]
    output = [_scaled(device, HIDDEN, ATTENDED) for _ in layers]

    def run(number: int) -> torch.Tensor | None:
        norm_weight, eps, *_ = layers[number]
        linear.norm_linear(hidden, norm_weight, eps, qkv[number])
        after = linear.linear(attended, output[number], residual=hidden)
        return experts.experts(after, *layers[number], CHOSEN, True)

    return Case(
        "linear parts of a layer, 1 row",
        in_turn([lambda i=i: run(i) for i in range(len(layers))]),
        QKV * HIDDEN + ATTENDED * HIDDEN + CHOSEN * EXPERT_BYTES + EXPERTS * HIDDEN * 2,
    )

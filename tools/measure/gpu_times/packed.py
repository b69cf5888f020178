"""Packed weights at the geometry of Qwen3-30B-A3B in Q4_K_M, and every block format once.

Weights of several layers are used in turn, so that they do not fit the GPU's caches.
"""

from collections.abc import Iterator

import torch

from hga_kernels import FORMATS, reference
from hga_kernels.gpu.linear import expert_gemv, experts, gemm, gemv, linear, norm, rows, unpack
from hga_kernels.weights import Packed, RowParts, plain
from tools.measure.gpu_times import Case, with_launch
from tools.measure.gpu_times.linear import (
    APPENDED,
    ATTENDED,
    CHOSEN,
    COPIES,
    EPS,
    EXPERTS,
    HIDDEN,
    SLICE,
    VOCAB,
    WIDTH,
    error,
    in_turn,
    random_rows,
)

ABOVE, BELOW = 4608, 512
"""Rows of q and k, and of v."""
_HALVES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where blocks have float16 numbers."""
SPREADS = {"Q4_K": 1e-4, "Q5_K": 5e-5, "Q6_K": 3e-5}
"""Scales that give weights of about the size of models'; those of other formats do not matter."""


def packed(device: torch.device, name: str, *shape: int) -> Packed:
    """Return random blocks in planes."""
    block = FORMATS[name]
    *stacked, columns = shape
    data = torch.randint(
        0,
        256,
        (*stacked, columns // block.size, block.bytes),
        dtype=torch.uint8,
        device=device,
    )
    for at in _HALVES[name]:
        scales = torch.rand(data.shape[:-1], device=device) + 0.5
        scales = (scales * SPREADS.get(name, 1e-3)).half()
        data[..., at : at + 2] = scales[..., None].view(torch.uint8)
    return Packed(data.flatten(-2), name).planar()


def size_of(*weights: Packed | RowParts) -> int:
    """Return the bytes of weights."""
    return sum(tensor.nbytes for weight in weights for tensor in weight.tensors)


Layer = tuple[torch.Tensor, float, torch.Tensor, Packed, Packed]


def _layer(device: torch.device, down: str) -> Layer:
    return (
        random_rows(device, HIDDEN).float(),
        EPS,
        random_rows(device, EXPERTS, HIDDEN) * HIDDEN**-0.5,
        packed(device, "Q4_K", EXPERTS, 2 * WIDTH, HIDDEN),
        packed(device, down, EXPERTS, HIDDEN, WIDTH),
    )


class Parts:
    """Weights and cases of one layer."""

    def __init__(self, device: torch.device) -> None:
        """Draw the weights."""
        self.device = device
        self.hidden = random_rows(device, 1, HIDDEN).float()
        self.attended = random_rows(device, 1, ATTENDED)
        self.scale = random_rows(device, HIDDEN).float()
        self.qkv = [
            RowParts((packed(device, "Q4_K", ABOVE, HIDDEN), packed(device, "Q6_K", BELOW, HIDDEN)))
            for _ in range(4 * COPIES)
        ]
        self.output = [packed(device, "Q4_K", HIDDEN, ATTENDED) for _ in range(4 * COPIES)]
        self.layers = {
            down: [_layer(device, down) for _ in range(COPIES // 2)] for down in ("Q4_K", "Q6_K")
        }
        self.lm_head = packed(device, "Q6_K", VOCAB, HIDDEN)

    def decode(self) -> dict[str, Case]:
        """Products of a single row, by the key of their launches."""
        hidden, attended, scale = self.hidden, self.attended, self.scale
        normed = reference.rms_norm(hidden, scale, EPS)
        found = {
            "norm": Case("rms_norm, 1 row", lambda: norm.rms_norm(hidden, scale, EPS, True)),
            "packed64": Case(
                "qkv with norm, 1 row",
                in_turn([lambda w=w: linear.norm_linear(hidden, scale, EPS, w) for w in self.qkv]),
                size_of(self.qkv[0]),
                check=lambda: error(
                    linear.norm_linear(hidden, scale, EPS, self.qkv[0]),
                    normed @ plain(self.qkv[0], torch.float32).T,
                ),
            ),
            "packed64_deep": Case(
                "output with residual, 1 row",
                in_turn(
                    [
                        lambda w=w: linear.linear(attended, w, torch.float32, hidden)
                        for w in self.output
                    ]
                ),
                size_of(self.output[0]),
                check=lambda: error(
                    linear.linear(attended, self.output[0], torch.float32, hidden),
                    attended.float() @ plain(self.output[0], torch.float32).T + hidden,
                ),
            ),
            "lm_head": Case(
                "lm_head with norm, 1 row",
                lambda: linear.norm_linear(hidden, scale, EPS, self.lm_head),
                size_of(self.lm_head),
                check=lambda: error(
                    linear.norm_linear(hidden, scale, EPS, self.lm_head),
                    normed @ plain(self.lm_head, torch.float32).T,
                ),
            ),
        }
        for down, layers in self.layers.items():
            routes = [expert_gemv.gate(hidden, *layer[:3], CHOSEN, True, True) for layer in layers]
            pairs = list(zip(routes, layers, strict=True))
            gated = [expert_gemv.gated_gemv(r.normed, a[3], route=r) for r, a in pairs]
            if down == "Q4_K":
                found["gate"] = Case(
                    "expert gate, 1 row",
                    in_turn(
                        [
                            lambda a=a: expert_gemv.gate(hidden, *a[:3], CHOSEN, True, True)
                            for a in layers
                        ]
                    ),
                )
                found["gated_packed64"] = Case(
                    "gate_up of 8 experts, 1 row",
                    in_turn(
                        [
                            lambda r=r, a=a: expert_gemv.gated_gemv(r.normed, a[3], route=r)
                            for r, a in pairs
                        ]
                    ),
                    size_of(layers[0][3]) * CHOSEN // EXPERTS,
                )
            found[f"mixed_{down}"] = Case(
                f"down of 8 experts in {down}, 1 row",
                in_turn(
                    [
                        lambda g=g, r=r, a=a: expert_gemv.mixed_gemv(g, r, a[4], hidden)
                        for g, (r, a) in zip(gated, pairs, strict=True)
                    ]
                ),
                size_of(layers[0][4]) * CHOSEN // EXPERTS,
            )
        return found

    def whole(self, down: str) -> Case:
        """All products of a layer, one after the other as in decoding, without attention."""
        layers = self.layers[down]

        def run(number: int) -> torch.Tensor | None:
            layer = layers[number]
            linear.norm_linear(self.hidden, layer[0], EPS, self.qkv[number])
            after = linear.linear(self.attended, self.output[number], torch.float32, self.hidden)
            assert after is not None
            return experts.experts(after, *layer, CHOSEN, True)

        read = size_of(self.qkv[0], self.output[0])
        read += size_of(*layers[0][3:]) * CHOSEN // EXPERTS + EXPERTS * HIDDEN * 2
        return Case(
            f"linear parts of a layer, down in {down}, 1 row",
            in_turn([lambda i=i: run(i) for i in range(len(layers))]),
            read,
        )

    def mixture(self, down: str, count: int, is_unpacked: bool) -> Case:
        """The experts of many rows."""
        hidden = random_rows(self.device, count, HIDDEN).float()
        layer = self.layers[down][0]
        held = (*layer[:3], *(unpack.unpack(w) for w in layer[3:])) if is_unpacked else layer

        def check() -> float:
            found = experts.experts(hidden, *held, CHOSEN, True)
            assert found is not None
            wide = (layer[0], EPS, layer[2].float(), *layer[3:])
            expected = reference.experts(hidden, *wide, CHOSEN, True)
            return error(found - hidden, expected - hidden)

        return Case(
            f"experts, {count} rows, {'in bf16' if is_unpacked else f'down in {down}'}",
            lambda: experts.experts(hidden, *held, CHOSEN, True),
            0 if is_unpacked else min(count * CHOSEN, EXPERTS) * size_of(*layer[3:]) // EXPERTS,
            2 * count * CHOSEN * 3 * WIDTH * HIDDEN,
            check if count <= APPENDED else None,
        )

    def attention(self, is_qkv: bool) -> Case:
        """Attention's products of many rows, with unpacked weights."""
        weight = unpack.unpack(self.qkv[0] if is_qkv else self.output[0])
        inputs = random_rows(self.device, SLICE, weight.shape[1])
        return Case(
            f"{'qkv' if is_qkv else 'output'}, {SLICE} rows, in bf16",
            lambda: linear.linear(inputs, weight, torch.float32),
            weight.nbytes,
            2 * SLICE * weight.numel(),
        )

    def unpacking(self) -> Case:
        """All weights of a layer."""
        weights = self.qkv[0], self.output[0], *self.layers["Q6_K"][0][3:]
        return Case(
            "unpack a layer",
            lambda: [unpack.unpack(weight) for weight in weights],
            size_of(*weights) + 2 * sum(weight.shape.numel() for weight in weights),
        )


def _formats(device: torch.device) -> Iterator[Case]:
    """Check every format: one row, four rows, unpacking, and rows in pinned memory."""
    inputs = random_rows(device, 4, HIDDEN)
    ids = torch.tensor([5, 0, 2047, -1], device=device)
    for name in _HALVES:
        weight = packed(device, name, HIDDEN, HIDDEN)
        wide = plain(weight, torch.float32)
        for count in (1, 4):
            yield Case(
                f"{name}, {count} row{'s' * (count > 1)} of {HIDDEN} x {HIDDEN}",
                lambda w=weight, c=count: linear.linear(inputs[:c], w, torch.float32),
                size_of(weight),
                check=lambda w=weight, c=count, p=wide: error(
                    linear.linear(inputs[:c], w, torch.float32), inputs[:c].float() @ p.T
                ),
            )
        yield Case(
            f"{name}, unpack {HIDDEN} x {HIDDEN}",
            lambda w=weight: unpack.unpack(w),
            size_of(weight) + 2 * wide.numel(),
            check=lambda w=weight, p=wide: error(unpack.unpack(w), p),
        )
        table = _in_host_memory(weight)

        def check(table: Packed = table, wide: torch.Tensor = wide) -> float:
            found = rows.gather_rows(ids, table, None, torch.float32)
            assert found is not None
            assert bool(found[3].isnan().all())
            return error(found[:3], wide[ids[:3]])

        yield Case(
            f"{name}, gather 4 rows from the host",
            lambda t=table: rows.gather_rows(ids, t, None, torch.float32),
            check=check,
        )


def _in_host_memory(weight: Packed) -> Packed:
    """Return the weight block after block, in pinned memory."""
    from hga_kernels.gguf_blocks import from_planes

    return Packed(from_planes(weight.data, weight.format).cpu().pin_memory(), weight.format)


def cases(device: torch.device) -> Iterator[Case]:
    """Everything this part is timed by."""
    yield from _formats(device)
    parts = Parts(device)
    yield from parts.decode().values()
    yield from (parts.whole(down) for down in parts.layers)
    yield parts.mixture("Q6_K", 3, is_unpacked=False)
    yield parts.mixture("Q6_K", APPENDED, is_unpacked=False)
    yield parts.mixture("Q6_K", SLICE, is_unpacked=True)
    yield parts.attention(is_qkv=True)
    yield parts.attention(is_qkv=False)
    yield parts.unpacking()


def candidates(device: torch.device) -> Iterator[Case]:
    """The launches to choose from."""
    parts = Parts(device)
    decode = parts.decode()
    for launches, offered, kind, shapes in (
        (gemv.LAUNCHES, gemv.CANDIDATES, "packed64", ("packed64", "lm_head")),
        (gemv.LAUNCHES, gemv.CANDIDATES, "packed64_deep", ("packed64_deep",)),
        (expert_gemv.LAUNCHES, expert_gemv.CANDIDATES, "gated_packed64", ("gated_packed64",)),
        (
            expert_gemv.LAUNCHES,
            expert_gemv.CANDIDATES,
            "mixed_packed64",
            ("mixed_Q4_K", "mixed_Q6_K"),
        ),
    ):
        for shape in shapes:
            yield from (with_launch(decode[shape], launches[kind], one) for one in offered[kind])
    yield from (with_launch(parts.unpacking(), unpack.LAUNCHES, one) for one in unpack.CANDIDATES)
    many = [parts.mixture("Q6_K", SLICE, is_unpacked=True)]
    for launch in gemm.CANDIDATES["grouped_bf16"]:
        yield from (with_launch(case, gemm.LAUNCHES["grouped_bf16"], launch) for case in many)
    attention = [parts.attention(is_qkv=is_qkv) for is_qkv in (True, False)]
    for launch in gemm.CANDIDATES["bf16"]:
        yield from (with_launch(case, gemm.LAUNCHES["bf16"], launch) for case in attention)

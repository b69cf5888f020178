"""Drawing the next token; settings are read on the GPU, so one CUDA graph serves all of them.

The depth of a token is how far its logit is below the largest, divided by the temperature, in whole
steps of 2^-19; tokens deeper than 32 have no weight. The depth of the last token that may be drawn
is searched digit by digit in base 64, first by the number of tokens (top-k), then by their weight
(nucleus). The draw adds Gumbel noise to the logits of these tokens and takes the largest sum.
"""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Build, Launch, capability, overlap, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2

_DIGITS = tl.constexpr(4)
_BASE = tl.constexpr(64)
_STEPS = tl.constexpr(2**24)
_STEPS_PER_UNIT = tl.constexpr(2.0**19)
_TILE = tl.constexpr(128)
"""Tokens compared to all values of a digit at a time."""

LAUNCHES = {90: Launch({"BLOCK": 2048}, 8), 120: Launch({"BLOCK": 2048}, 8)}
CANDIDATES = {
    "sample": tuple(
        Launch({"BLOCK": block}, warps) for block, warps in ((1024, 4), (2048, 8), (4096, 8))
    )
}


@triton.jit
def _begin(OVERLAPS: tl.constexpr):
    """Let the next kernel start, and wait for the one before."""
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def _largest(largest_ptr, COUNT: tl.constexpr, BLOCK_P: tl.constexpr):
    """Return the largest logit; it is not finite if any logit is NaN."""
    block = tl.arange(0, BLOCK_P)
    return tl.max(tl.load(largest_ptr + block, mask=block < COUNT, other=float("-inf")), 0)


@triton.jit
def _depths(logits_ptr, token, largest, temperature, VOCAB: tl.constexpr):
    """Return the depths of tokens, exact and in steps; depth _STEPS is never drawn."""
    logits = tl.load(logits_ptr + token, mask=token < VOCAB, other=float("-inf"))
    exact = (largest - logits) / temperature
    stepped = tl.minimum(exact * _STEPS_PER_UNIT, _STEPS).to(tl.int32)
    return exact, stepped


@triton.jit
def _found(
    sums_ptr,
    state_ptr,
    settings_ptr,
    top_k_ptr,
    PASS: tl.constexpr,
    STEP: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Return a lower bound of the last token's depth, found by a pass whose digit counts STEP."""
    block = tl.arange(0, BLOCK_P)
    mask = block < COUNT
    offsets = (PASS * COUNT + block[:, None]) * _BASE + tl.arange(0, _BASE)[None, :]
    sums = tl.sum(tl.load(sums_ptr + offsets, mask=mask[:, None], other=0.0), 0)
    wanted = tl.load(top_k_ptr).to(tl.float32)
    if PASS >= _DIGITS:
        # The last sum of the search's first pass is the weight of all.
        of_all = (_DIGITS * COUNT + block) * _BASE + _BASE - 1
        weight = tl.sum(tl.load(sums_ptr + of_all, mask=mask, other=0.0), 0)
        wanted = weight * tl.load(settings_ptr + 1)
    before = tl.minimum(tl.sum((sums < wanted).to(tl.int32), 0), _BASE - 1)
    return tl.load(state_ptr + PASS) + before * STEP


@triton.jit
def _deepest(
    sums_ptr,
    state_ptr,
    settings_ptr,
    top_k_ptr,
    HAS_NUCLEUS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Return the depth of the last token that may be drawn, after the first search or both."""
    deepest = _STEPS - 1
    if tl.load(top_k_ptr) > 0:
        deepest = _found(
            sums_ptr, state_ptr, settings_ptr, top_k_ptr, _DIGITS - 1, 1, COUNT, BLOCK_P
        )
    if HAS_NUCLEUS and tl.load(settings_ptr + 1) < 1:
        deepest = _found(
            sums_ptr, state_ptr, settings_ptr, top_k_ptr, 2 * _DIGITS - 1, 1, COUNT, BLOCK_P
        )
    return deepest


@Kernel
@triton.jit
def largest_kernel(
    logits_ptr,
    largest_ptr,
    likeliest_ptr,
    VOCAB: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the largest logit of a block of tokens, and the first token that has it."""
    _begin(OVERLAPS)
    block = tl.program_id(0)
    token = block * BLOCK + tl.arange(0, BLOCK)
    logits = tl.load(logits_ptr + token, mask=token < VOCAB, other=float("-inf"))
    largest = tl.max(logits, 0)
    likeliest = tl.min(tl.where(logits == largest, token, VOCAB), 0)
    wrong = tl.sum((logits != logits).to(tl.int32), 0)
    tl.store(largest_ptr + block, tl.where(wrong > 0, float("inf"), largest))
    tl.store(likeliest_ptr + block, likeliest)


@Kernel
@triton.jit
def narrow_kernel(
    logits_ptr,  # [VOCAB] float32
    settings_ptr,  # [2] float32: temperature, top_p
    top_k_ptr,  # [1] int32
    largest_ptr,  # [COUNT] float32
    sums_ptr,  # [2 * _DIGITS, COUNT, _BASE] float32
    state_ptr,  # [2 * _DIGITS] int32
    VOCAB: tl.constexpr,
    PASS: tl.constexpr,
    STEP: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum one digit of a search: number or weight of the tokens down to each of its values."""
    _begin(OVERLAPS)
    temperature = tl.load(settings_ptr)
    is_wanted = tl.load(top_k_ptr) > 0
    if PASS >= _DIGITS:
        is_wanted = tl.load(settings_ptr + 1) < 1
    if (temperature == 0) | (not is_wanted):
        return
    start = 0
    if STEP * _BASE < _STEPS:
        start = _found(
            sums_ptr, state_ptr, settings_ptr, top_k_ptr, PASS - 1, STEP * _BASE, COUNT, BLOCK_P
        )
    if tl.program_id(0) == 0:
        tl.store(state_ptr + PASS, start)
    ends = start + (tl.arange(0, _BASE) + 1) * STEP
    largest = _largest(largest_ptr, COUNT, BLOCK_P)
    deepest = _STEPS - 1
    if PASS >= _DIGITS:
        deepest = _deepest(sums_ptr, state_ptr, settings_ptr, top_k_ptr, False, COUNT, BLOCK_P)
    tiles = tl.zeros([_TILE, _BASE], tl.float32)
    for first in range(0, BLOCK, _TILE):
        token = tl.program_id(0) * BLOCK + first + tl.arange(0, _TILE)
        exact, stepped = _depths(logits_ptr, token, largest, temperature, VOCAB)
        weights = tl.where(stepped <= deepest, tl.exp(-exact) if PASS >= _DIGITS else 1.0, 0.0)
        tiles += tl.where(stepped[:, None] < ends[None, :], weights[:, None], 0.0)
    sums = tl.sum(tiles, 0)
    offsets = (PASS * COUNT + tl.program_id(0)) * _BASE + tl.arange(0, _BASE)
    tl.store(sums_ptr + offsets, sums)


@Kernel
@triton.jit
def draw_kernel(
    logits_ptr,
    settings_ptr,
    top_k_ptr,
    seed_ptr,  # [1] int64
    step_ptr,  # [1] int64
    largest_ptr,
    sums_ptr,
    state_ptr,
    deepest_ptr,  # [1] int32
    best_ptr,  # [COUNT] float32
    drawn_ptr,  # [COUNT] int32
    VOCAB: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the token of a block with the largest logit plus noise, of those that may be drawn."""
    _begin(OVERLAPS)
    temperature = tl.load(settings_ptr)
    if temperature == 0:
        return
    deepest = _deepest(sums_ptr, state_ptr, settings_ptr, top_k_ptr, True, COUNT, BLOCK_P)
    tl.store(deepest_ptr, deepest, mask=tl.program_id(0) == 0)
    largest = _largest(largest_ptr, COUNT, BLOCK_P)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exact, stepped = _depths(logits_ptr, token, largest, temperature, VOCAB)
    step = tl.load(step_ptr)
    low = (step & 0x7FFFFFFF).to(tl.int32) + tl.zeros([BLOCK], tl.int32)
    high = (step >> 31).to(tl.int32) + tl.zeros([BLOCK], tl.int32)
    bits, _, _, _ = tl.philox(tl.load(seed_ptr), token, low, high, token * 0)
    # Exponential noise, exact where it is small: those tokens win.
    uniform = ((bits >> 1).to(tl.int32, bitcast=True).to(tl.float32) + 0.5) * 2.0**-31
    series = uniform * (1 + uniform * (0.5 + uniform * (1 / 3 + uniform * 0.25)))
    exponential = tl.where(uniform < 0.01, series, -tl.log(tl.maximum(1 - uniform, 1e-30)))
    score = tl.where(stepped <= deepest, -exact - tl.log(exponential), float("-inf"))
    best = tl.max(score, 0)
    drawn = tl.min(tl.where(score == best, token, VOCAB), 0)
    tl.store(best_ptr + tl.program_id(0), best)
    tl.store(drawn_ptr + tl.program_id(0), drawn)


@Kernel
@triton.jit
def finish_kernel(
    settings_ptr,
    largest_ptr,
    likeliest_ptr,
    best_ptr,
    drawn_ptr,
    out_ptr,  # [1] int64
    COUNT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """The token of the best block; -1 if the largest logit is not finite."""
    _begin(OVERLAPS)
    block = tl.arange(0, BLOCK_P)
    mask = block < COUNT
    largest = tl.load(largest_ptr + block, mask=mask, other=float("-inf"))
    most = tl.max(largest, 0)
    best = largest
    token = tl.load(likeliest_ptr + block, mask=mask, other=0)
    if tl.load(settings_ptr) != 0:
        best = tl.load(best_ptr + block, mask=mask, other=float("-inf"))
        token = tl.load(drawn_ptr + block, mask=mask, other=0)
    first = tl.min(tl.where(best == tl.max(best, 0), block, BLOCK_P), 0)
    chosen = tl.sum(tl.where(block == first, token, 0), 0)
    is_finite = (most < float("inf")) & (most > float("-inf"))
    tl.store(out_ptr, tl.where(is_finite, chosen, -1).to(tl.int64))


def sample(
    logits: torch.Tensor,
    settings: torch.Tensor,
    top_k: torch.Tensor,
    seed: torch.Tensor,
    step: torch.Tensor,
) -> torch.Tensor | None:
    """See ``reference.sample``; scaled logits within 2^-19 of the last token's count as equal."""
    if logits.dtype != torch.float32 or logits.shape[0] != 1:
        return None
    return draw(logits.contiguous(), settings, top_k, seed, step)[0]


def draw(
    logits: torch.Tensor,
    settings: torch.Tensor,
    top_k: torch.Tensor,
    seed: torch.Tensor,
    step: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token and the depth of the last that may be drawn, unset at temperature 0."""
    vocab, device = logits.shape[1], logits.device
    launch = pick(LAUNCHES, capability(device))
    count = cdiv(vocab, launch.sizes["BLOCK"])
    largest, best = (torch.empty(count, dtype=torch.float32, device=device) for _ in range(2))
    likeliest, drawn = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    passes = 2 * _DIGITS.value
    sums = torch.empty(passes, count, _BASE.value, dtype=torch.float32, device=device)
    state = torch.empty(passes, dtype=torch.int32, device=device)
    deepest = torch.empty(1, dtype=torch.int32, device=device)
    out = torch.empty(1, dtype=torch.int64, device=device)
    blocks = {"COUNT": count, "BLOCK_P": next_power_of_2(count)}
    overlaps = overlap(device)
    options = launch.options() | overlaps
    largest_kernel[(count,)](logits, largest, likeliest, VOCAB=vocab, **options)
    for number in range(passes):
        narrow_kernel[(count,)](
            logits,
            settings,
            top_k,
            largest,
            sums,
            state,
            VOCAB=vocab,
            PASS=number,
            STEP=_BASE.value ** (_DIGITS.value - 1 - number % _DIGITS.value),
            **blocks,
            **options,
        )
    draw_kernel[(count,)](
        logits,
        settings,
        top_k,
        seed,
        step,
        largest,
        sums,
        state,
        deepest,
        best,
        drawn,
        VOCAB=vocab,
        **blocks,
        **options,
    )
    finish_kernel[(1,)](settings, largest, likeliest, best, drawn, out, **blocks, **overlaps)
    return out, deepest


_TYPES = {
    "logits_ptr": "*fp32",
    "settings_ptr": "*fp32",
    "top_k_ptr": "*i32",
    "seed_ptr": "*i64",
    "step_ptr": "*i64",
    "largest_ptr": "*fp32",
    "likeliest_ptr": "*i32",
    "sums_ptr": "*fp32",
    "state_ptr": "*i32",
    "deepest_ptr": "*i32",
    "best_ptr": "*fp32",
    "drawn_ptr": "*i32",
    "out_ptr": "*i64",
}
_QWEN = {"VOCAB": 151_936, "COUNT": 75, "BLOCK_P": 128, "OVERLAPS": True}

BUILDS = (
    Build("sample_largest", largest_kernel, _TYPES, LAUNCHES, {"VOCAB": 151_936, "OVERLAPS": True}),
    Build("sample_top_k", narrow_kernel, _TYPES, LAUNCHES, _QWEN | {"PASS": 1, "STEP": 4096}),
    Build("sample_nucleus", narrow_kernel, _TYPES, LAUNCHES, _QWEN | {"PASS": 7, "STEP": 1}),
    Build("sample_draw", draw_kernel, _TYPES, LAUNCHES, _QWEN),
    Build(
        "sample_finish",
        finish_kernel,
        _TYPES,
        {90: Launch({}), 120: Launch({})},
        {"COUNT": 75, "BLOCK_P": 128, "OVERLAPS": True},
    ),
)

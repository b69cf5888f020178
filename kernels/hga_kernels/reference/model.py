"""Linear layers, norms, RoPE, MLP, experts and sampling in plain torch.

Every weight may be block scaled, packed, or parts of several formats.
"""

import torch
from torch.nn import functional

from hga_kernels.arguments import Angles, HeadWeights
from hga_kernels.weights import FP8_BLOCK, Weight, plain

LARGEST_FP8 = 448.0
"""The largest finite e4m3 number."""


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Convert to float32, or leave float64 as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def linear(
    inputs: torch.Tensor,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``inputs @ weight.T + residual``.

    Args:
        inputs: [rows, in].
        weight: [out, in], same dtype, block scaled or packed.
        out_dtype: dtype of the result; None: that of ``inputs``.
        residual: [rows, out]; kernels may add it before the product is rounded.

    Returns:
        [rows, out].
    """
    out_dtype = out_dtype or inputs.dtype
    out = functional.linear(inputs, plain(weight, inputs.dtype)).to(out_dtype)
    return out if residual is None else (residual + out).to(out_dtype)


def rms_norm(inputs: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise the last dimension by its root mean square, in at least float32.

    Args:
        inputs: [..., size].
        weight: [size].
        eps: added to the mean square.

    Returns:
        [..., size] in the dtype of ``inputs``.
    """
    wide = widen(inputs)
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return normed.to(inputs.dtype) * weight


def norm_linear(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Apply ``rms_norm``, then ``linear``.

    Args:
        inputs: [rows, in].
        norm: [in].
        eps: of the norm.
        weight: [out, in].
        out_dtype: dtype of the result; None: that of ``inputs``.

    Returns:
        [rows, out].
    """
    return linear(rms_norm(inputs, norm, eps), weight, out_dtype)


def rotate(inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> torch.Tensor:
    """Apply RoPE to the first ``heads`` heads of each row; dimension i pairs with i + head_dim / 2.

    Args:
        inputs: [rows, at least heads, head_dim].
        cos: [rows, head_dim / 2], at least float32.
        sin: [rows, head_dim / 2].
        heads: number of heads to rotate.

    Returns:
        [rows, heads, head_dim] in the dtype of ``inputs``.
    """
    first, second = widen(inputs[:, :heads]).chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return rotated.to(inputs.dtype)


def split_heads(
    heads: torch.Tensor,
    weights: HeadWeights,
    angles: Angles,
    num_query_heads: int,
    num_kv_heads: int,
    out_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split a QKV product into heads: bias, norms of queries and keys, RoPE, shift of keys.

    With a bias everything is computed in float32 and rounded once.

    Args:
        heads: [rows, (query_heads + 2 * kv_heads) * head_dim]: queries, keys, values.
        weights: what is applied.
        angles: of the rows.
        num_query_heads: query heads.
        num_kv_heads: KV heads.
        out_dtype: dtype of the results; None: that of ``heads``.

    Returns:
        queries [rows, query_heads, head_dim], keys and values [rows, kv_heads, head_dim].
    """
    rotated = num_query_heads + num_kv_heads
    biased = heads if weights.bias is None else widen(heads) + weights.bias
    split = biased.unflatten(1, (rotated + num_kv_heads, -1))
    queries, keys = split[:, :num_query_heads], split[:, num_query_heads:rotated]
    if weights.q_norm is not None:
        queries = rms_norm(queries, weights.q_norm, weights.eps)
    if weights.k_norm is not None:
        keys = rms_norm(keys, weights.k_norm, weights.eps)
    queries = rotate(queries, angles.cos, angles.sin, num_query_heads)
    if weights.key_shift is None:
        keys = rotate(keys, angles.cos, angles.sin, num_kv_heads)
    else:
        keys = rotate(widen(keys), angles.cos, angles.sin, num_kv_heads) - weights.key_shift
    dtype = out_dtype or heads.dtype
    return queries.to(dtype), keys.to(dtype), split[:, rotated:].to(dtype)


def gated_silu(inputs: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) * up``.

    Args:
        inputs: [rows, 2 * size]: gate, then up.

    Returns:
        [rows, size] in the dtype of ``inputs``.
    """
    gate, up = widen(inputs).chunk(2, -1)
    return (functional.silu(gate) * up).to(inputs.dtype)


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """Return ``hidden`` plus the gated MLP of its norm.

    Args:
        hidden: [rows, hidden].
        norm: [hidden].
        eps: of the norm.
        gate_up: [2 * width, hidden]: gate, then up.
        down: [hidden, width].

    Returns:
        [rows, hidden].
    """
    return linear(gated_silu(norm_linear(hidden, norm, eps, gate_up)), down, residual=hidden)


def experts(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    expert_gate: torch.Tensor,
    gate_up: Weight,
    down: Weight,
    experts_per_token: int,
    normalize: bool,
) -> torch.Tensor:
    """Return ``hidden`` plus a mixture of gated MLPs of its norm, as in Qwen3-MoE.

    Each row goes through its top-k experts, weighted by the softmax of the gate. This definition
    lets every expert compute every row; most get weight zero.

    Args:
        hidden: [rows, hidden].
        norm: [hidden].
        eps: of the norm.
        expert_gate: [experts, hidden].
        gate_up: [experts, 2 * width, hidden]: gate, then up.
        down: [experts, hidden, width].
        experts_per_token: experts of each row.
        normalize: whether the weights of the chosen experts are scaled to sum to one
            (``norm_topk_prob``).

    Returns:
        [rows, hidden].
    """
    normed = rms_norm(hidden, norm, eps)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    shares = linear(normed, expert_gate, wide).softmax(-1)
    best = shares.topk(experts_per_token, -1)
    weights = torch.zeros_like(shares).scatter_(1, best.indices, best.values)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    mixed = torch.zeros_like(hidden, dtype=wide)
    for expert in range(expert_gate.shape[0]):
        out = linear(gated_silu(linear(normed, gate_up[expert])), down[expert], wide)
        mixed += out * weights[:, expert, None]
    return (hidden + mixed).to(hidden.dtype)


def quantize(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise rows to e4m3 with one scale per 128 columns, so that the largest becomes 448.

    FP8 checkpoints with "dynamic" activation scales expect their inputs like this.

    Args:
        inputs: [rows, size].

    Returns:
        values: [rows, size] float8_e4m3fn.
        scales: [rows, ceil(size / 128)] float32; ``inputs`` is about values * scales.
    """
    rows, size = inputs.shape
    wide = functional.pad(inputs.float(), (0, -size % FP8_BLOCK)).view(rows, -1, FP8_BLOCK)
    scales = wide.abs().amax(-1) / LARGEST_FP8
    scales = torch.where(scales == 0, 1.0, scales)
    values = (wide / scales[..., None]).clamp(-LARGEST_FP8, LARGEST_FP8)
    return values.view(rows, -1)[:, :size].to(torch.float8_e4m3fn), scales


def nucleus(logits: torch.Tensor, settings: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """Find the tokens that may be drawn: the ``top_k`` largest, and the nucleus of those.

    The nucleus is the smallest set of most likely tokens that together reach ``top_p`` (Holtzman
    et al., arXiv 1904.09751). Tokens as likely as the last one in it belong to it too.

    Args:
        logits: [1, vocab] float32.
        settings: [temperature, top_p]; the temperature is not 0.
        top_k: [1] int32; 0: no limit.

    Returns:
        [1, vocab] bool.
    """
    temperature, top_p = settings.double()
    scaled = (logits.double() - logits.max().double()) / temperature
    ordered = scaled.sort(descending=True).values[0]
    limit = min(int(top_k) or len(ordered), len(ordered))
    ordered = ordered[: int((ordered >= ordered[limit - 1]).sum())]
    weights = ordered.exp()
    reached = weights.cumsum(0)
    # If rounding keeps the total below the target, all tokens belong to the nucleus.
    count = int((reached < top_p * weights.sum()).sum()) + 1
    allowed: torch.Tensor = scaled >= ordered[min(count, len(ordered)) - 1]
    return allowed


def sample(
    logits: torch.Tensor,
    settings: torch.Tensor,
    top_k: torch.Tensor,
    seed: torch.Tensor,
    step: torch.Tensor,
) -> torch.Tensor:
    """Draw the next token.

    Temperature 0 takes the largest logit, the lowest id among equals. Otherwise logits are divided
    by the temperature and one of ``nucleus`` is drawn. The draw depends on seed and step alone.

    Args:
        logits: [1, vocab] float32; -inf excludes a token.
        settings: [temperature, top_p] float32.
        top_k: [1] int32; 0: no limit.
        seed: [1] int64.
        step: [1] int64: number of the token in its answer.

    Returns:
        [1] int64 token id; -1 if a logit is not a number or the largest is not finite.
    """
    largest = logits.max()
    if not torch.isfinite(largest):
        return torch.full_like(step, -1)
    # torch.argmax may return any of several equal logits; this is the first.
    likeliest = (logits == largest).to(torch.int32).argmax(1)
    if float(settings[0]) == 0:
        return likeliest
    allowed = nucleus(logits, settings, top_k)
    weights = ((logits - largest).double() / settings[0].double()).exp() * allowed
    generator = torch.Generator(logits.device).manual_seed(int(seed) * 1_000_003 + int(step))
    return weights.multinomial(1, generator=generator)[0]

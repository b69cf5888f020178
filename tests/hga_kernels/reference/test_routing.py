"""The plain definitions of the kernels against hand values, loops and torch's own attention."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from hga_kernels import Budget, ChunkIndex, ChunkRange, reference
from tests.support.kernel_cases import assert_drawn


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


# Linear, norms, RoPE and gate


def test_linear_is_the_product_with_the_transposed_weight() -> None:
    inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0]])
    expected = torch.tensor([[1.0, 3.0, -2.0], [3.0, 7.0, -4.0]])
    assert torch.equal(reference.linear(inputs, weight), expected)
    wide = reference.linear(inputs.bfloat16(), weight.bfloat16(), torch.float32)
    assert wide.dtype == torch.float32
    assert torch.equal(wide, expected)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    # Mean square of (3, 4, 0, 0) is 25 / 4; with eps 11/4 the root is 3.
    normed = reference.rms_norm(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.ones(4) * 2, 11 / 4)
    torch.testing.assert_close(normed, torch.tensor([[2.0, 8 / 3, 0.0, 0.0]]))


def test_rotate_pairs_the_first_half_with_the_second() -> None:
    quarter = torch.tensor([[math.pi / 2, 0.0]])
    inputs = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])
    rotated = reference.rotate(inputs, quarter.cos(), quarter.sin(), heads=1)
    # (1, 3) by a quarter turn is (-3, 1); (2, 4) stays; the second head is left out.
    torch.testing.assert_close(rotated, torch.tensor([[[-3.0, 2.0, 1.0, 4.0]]]))


def test_gated_silu_gates_the_second_half_by_the_first() -> None:
    out = reference.gated_silu(torch.tensor([[0.0, math.log(3.0), 5.0, 4.0]]))
    # silu(ln 3) = ln 3 * 3/4.
    torch.testing.assert_close(out, torch.tensor([[0.0, 3 * math.log(3.0)]]))


# Hadamard


def test_hadamard_of_four_by_hand() -> None:
    expected = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    assert torch.equal(reference.hadamard(4, torch.float32), expected)


@pytest.mark.parametrize("size", [1, 2, 16, 64, 128, 256])
def test_hadamard_is_orthonormal_and_symmetric(size: int) -> None:
    matrix = reference.hadamard(size, torch.float64)
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, identity, atol=1e-12, rtol=0)
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


@pytest.mark.parametrize("size", [0, 3, 96])
def test_hadamard_needs_a_power_of_two(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        reference.hadamard(size, torch.float32)


# Summaries


def test_summary_of_two_keys_by_hand() -> None:
    # Pair 0 is averaged as it is; pair 1 turns the first key by +90 and the second by -90 degrees.
    angles = torch.tensor([[0.0, math.pi / 2], [0.0, -math.pi / 2]])
    keys = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [3.0, 6.0, 5.0, 8.0]]])
    summary = reference.summarize(keys, angles.cos(), angles.sin())
    # (2, 4) -> (-4, 2) and (6, 8) -> (8, -6).
    torch.testing.assert_close(summary, torch.tensor([[[2.0, 2.0, 4.0, -2.0]]]))


def test_runs_are_summarised_on_their_own() -> None:
    keys, angles = random(2, 24, 8), random(6, 4, seed=1)
    whole = reference.summarize(keys, angles.cos(), angles.sin())
    assert whole.shape == (2, 4, 8)
    for run in range(4):
        part = reference.summarize(keys[:, 6 * run : 6 * run + 6], angles.cos(), angles.sin())
        torch.testing.assert_close(whole[:, run : run + 1], part)


# The 2-bit token index

Bytes = npt.NDArray[np.uint8]


def unpack(codes: Bytes) -> npt.NDArray[np.int64]:
    """Levels [tokens, dim] of the codes of one chunk, [groups, dim / 16, group_size, 4]."""
    groups, slabs, group_size, _ = codes.shape
    levels = np.full((groups * group_size, slabs * 16), -1)
    for group in range(groups):
        for token in range(group_size):
            for slab in range(slabs):
                for byte in range(4):
                    value = int(codes[group, slab, token, byte])
                    for pair in range(4):
                        place = 16 * slab + 4 * pair + byte
                        levels[group * group_size + token, place] = (value >> 2 * pair) & 3
    return levels


def levels_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Level of each dimension of one token: borders at -1, 0 and 1 root mean squares."""
    spread = np.sqrt(np.mean(values**2))
    return np.digitize(values, [-spread, 0.0, spread])


def sylvester(size: int) -> npt.NDArray[np.float64]:
    signs = [[(-1) ** (i & j).bit_count() for j in range(size)] for i in range(size)]
    return np.array(signs) / math.sqrt(size)


@pytest.mark.parametrize(("dim", "chunk", "slab"), [(16, 8, 8), (64, 64, 16), (128, 24, 8)])
def test_codes_are_the_levels_of_the_transformed_keys(dim: int, chunk: int, slab: int) -> None:
    keys, centres = random(2, 3 * chunk, dim), random(2, 3, dim, seed=1)
    codes, scales = reference.encode_tokens(keys, centres)
    assert codes.shape == (2, 3, chunk // slab, dim // 16, slab, 4)
    assert codes.shape[2:] == reference.code_shape(chunk, dim, "slabs")
    assert codes.dtype == torch.uint8
    assert scales.shape == (2, 3, chunk)
    for head in range(2):
        for number in range(3):
            own = keys[head, number * chunk : (number + 1) * chunk] - centres[head, number]
            rotated = own.numpy() @ sylvester(dim)
            levels = unpack(codes[head, number].numpy())
            for token in range(chunk):
                assert np.array_equal(levels[token], levels_of(rotated[token]))
                # The scale with the least squared error, by numpy's own solver.
                steps = (levels[token] - 1.5)[:, None]
                best = np.linalg.lstsq(steps, rotated[token], rcond=None)[0][0]
                assert float(scales[head, number, token]) == pytest.approx(best, rel=2**-8)


def test_decoding_gives_scale_times_step() -> None:
    keys, centres = random(2, 128, 32), random(2, 2, 32, seed=1)
    codes, scales = reference.encode_tokens(keys, centres)
    decoded = reference.decode_tokens(codes, scales)
    assert decoded.shape == (2, 2, 64, 32)
    for head in range(2):
        for chunk in range(2):
            steps = unpack(codes[head, chunk].numpy()) - 1.5
            expected = steps * scales[head, chunk].double().numpy()[:, None]
            np.testing.assert_allclose(decoded[head, chunk].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("dim", [16, 64])
def test_packed_by_tokens_a_byte_holds_dimensions_a_quarter_apart(dim: int) -> None:
    keys, centres = random(2, 3 * 32, dim), random(2, 3, dim, seed=1)
    slabs, scales = reference.encode_tokens(keys, centres)
    codes, same_scales = reference.encode_tokens(keys, centres, "tokens")
    assert codes.shape == (2, 3, 32, dim // 4)
    assert codes.shape[2:] == reference.code_shape(32, dim, "tokens")
    assert codes.is_contiguous()
    assert torch.equal(scales, same_scales)
    expected = unpack(slabs[1, 2].numpy())
    for token in range(32):
        for byte in range(dim // 4):
            value = int(codes[1, 2, token, byte])
            found = [(value >> 2 * pair) & 3 for pair in range(4)]
            assert found == [expected[token, byte + pair * dim // 4] for pair in range(4)]
    decoded = reference.decode_tokens(slabs, scales)
    assert torch.equal(reference.decode_tokens(codes, scales), decoded)


@pytest.mark.parametrize("packing", ["slabs", "tokens"])
def test_chunks_are_indexed_into_the_given_entries(packing: reference.Packing) -> None:
    keys, angles = random(2, 3 * 32, 16).bfloat16(), random(32, 8, seed=1).float()
    turns = angles.cos(), angles.sin()
    summaries = reference.summarize(keys, *turns).bfloat16()
    codes, scales = reference.encode_tokens(keys, summaries, packing)
    arrays = [
        torch.full_like(entry, 9).repeat(1, 2, *[1] * (entry.dim() - 2))
        for entry in (summaries, codes, scales)
    ]
    cos, sin = turns
    own = ChunkIndex(*(array[:, 2:5] for array in arrays))
    reference.index_chunks(keys, cos, sin, own)
    for array, entry in zip(arrays, (summaries, codes, scales), strict=True):
        assert torch.equal(array[:, 2:5], entry)
        assert (array[:, :2] == 9).all()
        assert (array[:, 5:] == 9).all()


def test_error_is_that_of_the_best_uniform_quantiser() -> None:
    """Four uniform levels leave 0.1188 of a Gaussian's variance (Max, 1960, table II)."""
    # With so many dimensions, a scale per token gains almost nothing over one for all.
    keys = random(1, 64 * 8, 1024)
    centres = torch.zeros(1, 8, 1024, dtype=torch.float64)
    codes, scales = reference.encode_tokens(keys, centres)
    decoded = reference.decode_tokens(codes, scales).flatten(1, 2)
    rotated = keys @ reference.hadamard(1024, torch.float64)
    error = (decoded - rotated).square().mean() / keys.square().mean()
    assert float(error) == pytest.approx(0.1188, rel=0.004)


def test_the_hadamard_transform_spreads_an_outlier_over_all_dimensions() -> None:
    keys = random(1, 64, 64)
    keys[:, :, 5] *= 30
    centres = torch.zeros(1, 1, 64, dtype=torch.float64)
    decoded = reference.decode_tokens(*reference.encode_tokens(keys, centres))[0, 0].double()
    back = decoded @ reference.hadamard(64, torch.float64)
    query = random(64, seed=3)
    wanted, found = keys[0] @ query, back @ query
    assert torch.corrcoef(torch.stack((wanted, found)))[0, 1] > 0.9


def test_keys_equal_to_their_centre_have_scale_zero() -> None:
    keys = torch.ones(1, 16, 16)
    codes, scales = reference.encode_tokens(keys, torch.ones(1, 1, 16))
    assert torch.equal(reference.decode_tokens(codes, scales), torch.zeros(1, 1, 16, 16))


# Group scores and selection


def make_index(
    kv_heads: int, chunks: int, dim: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    keys, centres = random(kv_heads, chunks * 8, dim, seed=seed), random(kv_heads, chunks, dim)
    return centres, *reference.encode_tokens(keys, centres)


def estimated_shares(
    queries: torch.Tensor,
    index: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    candidates: list[int],
) -> dict[int, float]:
    """Return each group's share of the softmax over the larger score of each pair of decoded keys.

    For one head and groups of 4 tokens; queries [rows, dim] are not transformed.
    """
    centres, codes, scales = index
    groups = scales.shape[1] // 4
    keys = reference.decode_tokens(codes, scales).double()
    keys = keys @ reference.hadamard(keys.shape[-1], torch.float64) + centres[:, None]
    scores = torch.einsum("rd,ctd->rct", queries, keys[candidates])
    half = scores.shape[2] // groups // 2
    starts = [2 * half * group for group in range(groups)]
    pairs = [(t, t + half) for start in starts for t in range(start, start + half)]
    larger = torch.stack([scores[:, :, pair].max(-1).values for pair in pairs], -1)
    weights = larger.flatten(1).softmax(-1).mean(0)
    masses = weights.view(len(candidates) * groups, -1).sum(1).tolist()
    numbers = [chunk * groups + group for chunk in candidates for group in range(groups)]
    return dict(zip(numbers, masses, strict=True))


def test_group_scores_are_the_softmax_over_decoded_keys() -> None:
    centres, codes, scales = make_index(2, 6, 32)
    queries = random(2, 3, 5, 32, seed=2) / 2
    chunks = torch.tensor(
        [[[0, 3, 4], [5, -1, 2], [-1, -1, -1]], [[1, 2, 3], [0, 1, -1], [4, 5, 0]]]
    )
    rotated = queries @ reference.hadamard(32, torch.float64)
    centre_scores = queries @ centres[:, None].transpose(2, 3)
    mass = reference.score_groups(rotated, centre_scores, codes, scales, chunks, 4)
    assert mass.shape == (2, 3, 6)
    for head in range(2):
        index = (centres[head], codes[head], scales[head])
        for block in range(3):
            present = [c for c in chunks[head, block].tolist() if c >= 0]
            expected = estimated_shares(queries[head, block], index, present) if present else {}
            for place, chunk in enumerate(chunks[head, block].tolist()):
                for group in range(2):
                    found = float(mass[head, block, 2 * place + group])
                    assert found == pytest.approx(expected.get(2 * chunk + group, 0.0), abs=1e-6)
    torch.testing.assert_close(mass[0, 0].sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_top_chunks_have_the_most_softmax_weight(count: int) -> None:
    scores = random(2, 3, 4, 9, seed=3)
    ends = torch.tensor([9, 4, 1])
    chunks = reference.top_chunks(scores, ChunkRange(2, ends, scores.shape[3]), count)
    for head in range(2):
        for block, end in enumerate(ends.tolist()):
            weight = scores[head, block, :, 2:end].softmax(-1).sum(0)
            best = weight.argsort(descending=True)[:count] + 2 if end > 2 else torch.empty(0)
            found = [c for c in chunks[head, block].tolist() if c >= 0]
            assert len(found) == len(set(found))
            assert set(found) == set(best.tolist())


def test_the_groups_of_the_largest_mass_are_taken() -> None:
    mass = torch.tensor([[[0.1, 0.5, 0.0, 0.3]], [[0.2, 0.0, 9.0, 9.0]]])
    chunks = torch.tensor([[[7, 2]], [[3, -1]]])
    groups = reference.take_groups(mass, chunks, 3)
    assert groups.tolist() == [[[15, 5, 14], [6, 7, -1]]]


def shares_of(*shape: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    """Random shares of the attention: those of each row add up to 0.8."""
    mass = (spread * random(*shape, seed=seed)).exp()
    return 0.8 * mass / mass.sum(-1, keepdim=True)


@pytest.mark.parametrize("layer", [0, 3, 47])
@pytest.mark.parametrize(("budget", "odds"), [(40, 1.0), (160, 1.0), (40, 2.0)])
def test_groups_are_drawn_by_their_share(layer: int, budget: int, odds: float) -> None:
    chunks = torch.arange(3, 103).expand(3, 2, -1).clone()
    chunks[1, 1, 63:] = -1
    shares = shares_of(3, 2, 400, seed=layer, spread=2.0)
    groups, importance = reference.draw_groups(shares, chunks, Budget(budget, 4, odds), layer)
    assert groups.shape == importance.shape == (2, 3, budget)
    for head, block in itertools.product(range(3), range(2)):
        numbers = (chunks[head, block, :, None] * 4 + torch.arange(4)).flatten().tolist()
        of_group = {
            group: of
            for group, of in zip(numbers, shares[head, block].tolist(), strict=True)
            if group >= 0
        }
        pairs = zip(groups[block, head].tolist(), importance[block, head].tolist(), strict=True)
        found = {group: weight for group, weight in pairs if group >= 0}
        assert_drawn(found, of_group, layer * 3 + head, budget, 4, 1e-5, 0.0, odds)
        assert sum(weight > 1 for weight in found.values()) > budget // 10
        assert len(found) < budget


def test_what_is_drawn_stands_for_all() -> None:
    """Over many layers, whose numbers differ, a sum over what was drawn is that over all groups."""
    shares = shares_of(4, 1, 1600, seed=9, spread=2.0).double()
    worth = 1 + random(4, 1, 1600, seed=10).double()
    chunks = torch.arange(400).expand(4, 1, -1)
    whole = (shares * worth).sum(2)
    sums, top_sums = [], []
    for layer in range(300):
        groups, importance = reference.draw_groups(shares, chunks, Budget(240, 4), layer)
        drawn = groups.transpose(0, 1)
        of_drawn = (shares * worth).gather(2, drawn.clamp_min(0).long())
        sums.append((of_drawn * importance.transpose(0, 1) * (drawn >= 0)).sum(2))
        largest = shares.topk(240).indices
        top_sums.append((shares * worth).gather(2, largest).sum(2))
    error = (torch.stack(sums).mean(0) - whole).abs()
    assert float((error / whole).max()) < 0.01
    assert float(((torch.stack(top_sums).mean(0) - whole).abs() / whole).min()) > 0.03


def test_fewer_groups_are_drawn_where_the_window_has_the_attention() -> None:
    chunks = torch.arange(400).expand(2, 1, -1)
    shares = shares_of(2, 1, 1600, seed=9)
    many, _ = reference.draw_groups(shares, chunks, Budget(240, 4), 5)
    few, _ = reference.draw_groups(shares / 16, chunks, Budget(240, 4), 5)
    assert (few >= 0).sum() < (many >= 0).sum() / 8


def test_all_groups_are_taken_where_there_is_room_for_twice_as_many() -> None:
    chunks = torch.arange(32).expand(2, 1, -1)
    groups, importance = reference.draw_groups(
        shares_of(2, 1, 128, seed=3), chunks, Budget(256, 4), 5
    )
    assert groups.sort().values.tolist() == [[list(range(128))] * 2]
    assert (importance == 1).all()
    groups, _ = reference.draw_groups(shares_of(2, 1, 128, seed=3), chunks, Budget(255, 4), 5)
    assert (groups < 0).any()


def test_queries_alike_draw_the_same_groups() -> None:
    shares = shares_of(2, 1, 400, seed=9, spread=2.0)
    chunks = torch.arange(100).expand(2, 1, -1)
    first, _ = reference.draw_groups(shares, chunks, Budget(90, 4), 5)
    near = shares * (1 + 0.02 * random(2, 1, 400, seed=11))
    second, _ = reference.draw_groups(near, chunks, Budget(90, 4), 5)
    for head in range(2):
        sets = [set(one[0, head].tolist()) - {-1} for one in (first, second)]
        assert len(sets[0] & sets[1]) >= 0.9 * len(sets[0]) > 20


def test_the_mass_of_the_window_counts_in_the_normalisation() -> None:
    centres, codes, scales = make_index(2, 12, 32)
    queries = random(2, 1, 5, 32, seed=4)
    rotated = queries @ reference.hadamard(32, queries.dtype)
    centre_scores = queries @ centres[:, None].transpose(2, 3)
    chunks = torch.arange(2, 12).expand(2, 1, -1)
    arguments = rotated, centre_scores, codes, scales, chunks, 4
    mass = reference.score_groups(*arguments)
    nothing = torch.full((2, 1, 5), -math.inf)
    torch.testing.assert_close(reference.score_groups(*arguments, nothing), mass)
    # A row whose window has all the mass has shares of nothing.
    rows = [
        reference.score_groups(rotated[:, :, [r]], centre_scores[:, :, [r]], *arguments[2:])
        for r in range(5)
    ]
    huge = nothing.clone()
    huge[:, :, 0] = 1e4
    torch.testing.assert_close(reference.score_groups(*arguments, huge), sum(rows[1:]) / 5)
    index, allowed = ChunkIndex(centres, codes, scales), ChunkRange(2, torch.tensor([12]))
    budget = Budget(9, 4)
    few = reference.select_groups(queries, index, allowed, budget, window_lse=huge.clamp_min(1e4))
    assert (few[0] == -1).all()


def test_selection_is_by_estimated_shares() -> None:
    centres, codes, scales = make_index(2, 12, 32)
    queries = random(2, 3, 5, 32, seed=4)
    ends = torch.tensor([12, 7, 2], dtype=torch.int32)
    groups, importance = reference.select_groups(
        queries, ChunkIndex(centres, codes, scales), ChunkRange(2, ends), Budget(5, 4), layer=2
    )
    assert groups.shape == importance.shape == (3, 2, 5)
    for block, end in enumerate(ends.tolist()):
        for head in range(2):
            pairs = zip(groups[block, head].tolist(), importance[block, head].tolist(), strict=True)
            found = {group: weight for group, weight in pairs if group >= 0}
            if end == 2:
                assert found == {}
                continue
            rows = queries[head, block]
            index = centres[head], codes[head], scales[head]
            expected = estimated_shares(rows, index, list(range(2, end)))
            assert_drawn(found, expected, 2 * 2 + head, 5, 2, 1e-5)


def test_nothing_to_choose_from_gives_nothing() -> None:
    centres, codes, scales = make_index(2, 3, 16)
    ends = torch.tensor([2, 0, -4], dtype=torch.int32)
    index = ChunkIndex(centres, codes, scales)
    groups, importance = reference.select_groups(
        random(2, 3, 1, 16), index, ChunkRange(2, ends), Budget(5, 4)
    )
    assert groups.shape == importance.shape == (3, 2, 0)


# Attention over pages


def paged(
    keys: torch.Tensor, values: torch.Tensor, size: int, spare: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """A pool with the pages of [kv_heads, tokens, dim] in random order, and where they are.

    What holds no token is NaN, in spare pages as well. Slots: [kv_heads, groups].
    """
    kv_heads, tokens, dim = keys.shape
    groups = -(-tokens // size)
    pool = keys.new_full((kv_heads * groups + spare, 2, size, dim), math.nan)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(5))
    slots = order[: kv_heads * groups].view(kv_heads, groups)
    for head in range(kv_heads):
        for token in range(tokens):
            page = pool[slots[head, token // size]]
            page[0, token % size] = keys[head, token]
            page[1, token % size] = values[head, token]
    return pool, slots


@pytest.mark.parametrize("ratio", [1, 3, 8])
def test_attention_over_pages_is_masked_attention(ratio: int) -> None:
    kv_heads, tokens, dim, size, blocks, rows = 2, 37, 16, 8, 3, 4
    keys, values = random(kv_heads, tokens, dim), random(kv_heads, tokens, dim, seed=1)
    queries = random(blocks, rows, kv_heads * ratio, dim, seed=2)
    positions = torch.tensor([[4, 5, 6, 7], [17, 18, 19, 20], [33, 34, 35, 36]])
    pool, where = paged(keys, values, size)
    groups = torch.tensor(
        [
            [[0, -1, -1, -1], [-1, -1, -1, 0]],
            [[2, 0, -1, 1], [-1, 1, 2, -1]],
            [[4, 1, -1, 0], [3, 4, 0, 2]],
        ]
    )
    heads = torch.arange(kv_heads)[:, None]
    slots = torch.where(groups < 0, -1, where[heads, groups.clamp_min(0)])
    out, mass = reference.attend_pages(queries, positions, groups, slots, pool, 0.3, with_mass=True)
    logs = reference.attention_lse(queries, positions, groups, slots, pool, 0.3)
    assert mass is not None
    for block in range(blocks):
        for head in range(kv_heads):
            listed = {g for g in groups[block, head].tolist() if g >= 0}
            mask = torch.zeros(rows, tokens, dtype=torch.bool)
            for row in range(rows):
                for token in range(int(positions[block, row]) + 1):
                    mask[row, token] = token // size in listed
            own = queries[block, :, head * ratio : (head + 1) * ratio].transpose(0, 1)
            expected = functional.scaled_dot_product_attention(
                own,
                keys[head].expand(ratio, -1, -1),
                values[head].expand(ratio, -1, -1),
                mask,
                scale=0.3,
            )
            found = out[block, :, head * ratio : (head + 1) * ratio].transpose(0, 1)
            torch.testing.assert_close(found, expected)
            scores = (own @ keys[head].T * 0.3).masked_fill(~mask, -math.inf)
            own_logs = logs[block, :, head * ratio : (head + 1) * ratio].T
            torch.testing.assert_close(own_logs, scores.logsumexp(-1))
            weights = functional.pad(scores.softmax(-1).sum((0, 1)), (0, -tokens % size))
            of_groups = weights.view(-1, size).sum(1)
            for place, group in enumerate(groups[block, head].tolist()):
                expected_mass = float(of_groups[group]) if group >= 0 else 0.0
                assert float(mass[block, head, place]) == pytest.approx(expected_mass, abs=1e-6)


def test_pages_count_as_many_as_they_stand_for() -> None:
    """As if each stood there so many times; their own mass is of one."""
    keys, values, queries = (
        random(1, 12, 16),
        random(1, 12, 16, seed=1),
        random(1, 2, 3, 16, seed=2),
    )
    pool, slots = paged(keys, values, 4)
    positions, groups = torch.tensor([[10, 11]]), torch.tensor([[[0, 1, -1, 2]]])
    where = slots[0, groups.clamp_min(0)].to(torch.int32)
    importance = torch.tensor([[[3.0, 1.0, 1.0, 2.0]]])
    out, mass = reference.attend_pages(
        queries, positions, groups, where, pool, 0.3, True, importance
    )
    assert mass is not None
    tokens = torch.tensor([*range(4), *range(4), *range(4), *range(4, 8), *[*range(8, 12)] * 2])
    scores = torch.einsum("rhd,td->hrt", queries[0], keys[0, tokens]) * 0.3
    weights = scores.masked_fill(tokens > positions[0, :, None], -math.inf).softmax(-1)
    expected = torch.einsum("hrt,td->rhd", weights, values[0, tokens])
    torch.testing.assert_close(out[0], expected)
    of_tokens = weights.sum((0, 1))
    own = [of_tokens[:4].sum(), of_tokens[12:16].sum(), 0, of_tokens[16:20].sum()]
    torch.testing.assert_close(mass[0, 0].double(), torch.tensor(own).double(), rtol=1e-5, atol=0)


def test_attention_gives_no_mass_unless_asked() -> None:
    pool, slots = paged(random(1, 4, 16), random(1, 4, 16), 4)
    arguments = (random(1, 1, 1, 16), torch.tensor([[3]]), torch.tensor([[[0]]]), slots[None])
    assert reference.attend_pages(*arguments, pool, 1.0)[1] is None

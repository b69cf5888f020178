// Chooses the groups a block of queries reads: the 2-bit token index estimates the attention mass of
// every group, of 4 or 16 tokens (of tokens t and t + half a group the larger counts), and groups are
// drawn by their mass.
//
// Codes of 16 tokens lie as [head_dim / 16][16 tokens][4 bytes]; byte j of slab m holds the codes of
// dimensions 16m + 4i + j for i = 0..3 in its bit pairs, so that unpacking pair i of a slab gives
// 16 tokens x 4 dimensions: the operand of a byte dot product with one lane per token.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "exp2.h"
#include "parallel.h"

enum { SMALL = 4, CHUNK = 64, MOST_GROUPS = CHUNK / SMALL, LANES = 16, SLABS = CHUNK / LANES,
       MAX_DIM = 256, MAX_TILE = 8 };
// Of reference.py.
enum { MOST_MULTIPLE = 64, TURN = 1 << 24, GROUP_TURN = 0x9E3779, HEAD_TURN = 0xC13FA9 };

// Scores are kept in log2 units, so that a power of two gives the weight.
static const float LOG2_E = 1.44269504f;

typedef struct {
    const float *queries;        // [kv_heads, blocks, rows, dim], times the softmax scale
    const uint16_t *summaries;   // [kv_heads, capacity_chunks, dim] bf16
    const uint8_t *codes;        // [kv_heads, capacity_chunks, SLABS, dim * 4]
    const uint16_t *scales;      // [kv_heads, capacity_chunks, CHUNK] bf16
    const int32_t *end_chunks;   // [blocks]
    const float *always;         // [kv_heads, blocks, rows] log of the mass of other groups, or NULL
    int32_t *groups;             // [blocks, kv_heads, budget], -1: none
    float *multiples;            // [blocks, kv_heads, budget]: how many groups each stands for
    int blocks, kv_heads, rows, dim, capacity_chunks, first_chunk, span, budget, parts, layer,
        per_chunk;  // groups of a chunk: MOST_GROUPS, or SLABS
    // Scratch, per pair of KV head and block; span is the widest range of chunks.
    float *centre_scores;  // [pairs, rows, span]: in log2 units
    int8_t *bytes;         // [pairs, rows, dim]
    float *factors;        // [pairs, rows, 2]
    float *sums;           // [pairs, rows, span, per_chunk + 1], if pairs are taken in parts
    int failed;
} SelectJob;

// Weights of one pair.
typedef struct {
    float *sums;    // [rows, span, per_chunk]: relative to
    float *maxima;  // [rows, span]
} Weights;

static size_t size_of_weights(const SelectJob *job) {
    return (size_t)job->rows * job->span * (job->per_chunk + 1);
}

static Weights weights_at(const SelectJob *job, float *memory) {
    return (Weights){memory, memory + (size_t)job->rows * job->span * job->per_chunk};
}

static void quantise_row(const float *query, int8_t *bytes, float *factors, int dim) {
    float top = 0;
    for (int d = 0; d < dim; d++) {
        float size = fabsf(query[d]);
        top = size > top ? size : top;
    }
    float step = top > 0 ? top / 127.0f : 1.0f;
    int total = 0;
    for (int d = 0; d < dim; d++) {
        bytes[d] = (int8_t)lrintf(query[d] / step);
        total += bytes[d];
    }
    factors[0] = LOG2_E * step;
    factors[1] = -1.5f * LOG2_E * step * (float)total;
}

#ifdef HGA_AVX512_VNNI
// Pair i of a slab: the codes of dimensions 16m + 4i to 16m + 4i + 3 of 16 tokens.
static inline __m512i unpack(__m512i slab, int i) {
    return _mm512_and_si512(_mm512_srli_epi16(slab, 2 * i), _mm512_set1_epi8(3));
}

static inline __m512i of_query(const int8_t *bytes) {
    int32_t four;
    memcpy(&four, bytes, 4);
    return _mm512_set1_epi32(four);
}

// Products of `tile` queries with the tokens of one chunk, unpacked on the way: for few rows.
static inline __attribute__((always_inline)) void packed_products(
    const uint8_t *codes, const int8_t *bytes, int dim, int tile, __m512i sums[SLABS][MAX_TILE]) {
    for (int g = 0; g < SLABS; g++)
        for (int r = 0; r < tile; r++) sums[g][r] = _mm512_setzero_si512();
    for (int m = 0; m < dim / 16; m++) {
        __m512i slabs[SLABS];
        for (int g = 0; g < SLABS; g++)
            slabs[g] = _mm512_loadu_si512(codes + (size_t)g * LANES * (dim / 4) + 64 * m);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __m512i of_pair[SLABS];
            for (int g = 0; g < SLABS; g++) of_pair[g] = unpack(slabs[g], i);
            for (int r = 0; r < tile; r++) {
                __m512i query = of_query(bytes + (size_t)r * dim + 16 * m + 4 * i);
                for (int g = 0; g < SLABS; g++)
                    sums[g][r] = _mm512_dpbusd_epi32(sums[g][r], of_pair[g], query);
            }
        }
    }
}

// The same with codes that were unpacked for all rows.
static inline __attribute__((always_inline)) void unpacked_products(
    __m512i (*unpacked)[MAX_DIM / 4], const int8_t *bytes, int dim, int tile,
    __m512i sums[SLABS][MAX_TILE]) {
    for (int g = 0; g < SLABS; g++) {
        for (int r = 0; r < tile; r++) sums[g][r] = _mm512_setzero_si512();
        for (int step = 0; step < dim / 4; step++)
            for (int r = 0; r < tile; r++)
                sums[g][r] = _mm512_dpbusd_epi32(sums[g][r], unpacked[g][step],
                                                 of_query(bytes + (size_t)r * dim + 4 * step));
    }
}

static inline __m512 load_bf16(const uint16_t *values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)values)), 16));
}

// Sums of the lanes of four vectors, in one vector of four.
static inline __m128 four_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Of a group of 16 tokens in each of two vectors the larger ones of tokens t and t + 8: eight lanes of
// the first, then eight of the second.
static inline __m512 larger_halves(__m512 a, __m512 b) {
    return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}

// Sums of each eight lanes of two such vectors, in the order of groups.
static inline __m128 sums_of_groups(__m512 first, __m512 last) {
    __m512 sums = _mm512_add_ps(_mm512_shuffle_f32x4(first, last, 0x88),
                                _mm512_shuffle_f32x4(first, last, 0xdd));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xb1));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0x4e));
    const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(places, sums));
}

// Of four groups of 4 tokens in each of two vectors the larger ones of tokens t and t + 2: in each
// four lanes two of a group of the first and two of the same group of the second.
static inline __m512 larger_halves_of_small(__m512 a, __m512 b) {
    __m512 of_a = _mm512_max_ps(a, _mm512_permute_ps(a, 0x4e));
    __m512 of_b = _mm512_max_ps(b, _mm512_permute_ps(b, 0x4e));
    return _mm512_mask_blend_ps(0xcccc, of_a, of_b);
}

// Sums of each two neighbouring lanes of two such vectors, in the order of groups.
static inline __m512 sums_of_small_groups(__m512 first, __m512 last) {
    first = _mm512_add_ps(first, _mm512_permute_ps(first, 0xb1));
    last = _mm512_add_ps(last, _mm512_permute_ps(last, 0xb1));
    const __m512i places =
        _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 16, 20, 24, 28, 18, 22, 26, 30);
    return _mm512_permutex2var_ps(first, places, last);
}

// A weight below 2^NEGLIGIBLE of the heaviest counts as none.
static const float NEGLIGIBLE = -24.0f;

// Scores and weights of one chunk for `tile` rows from `row` on. dim and tile are constants where
// this is called, so that everything stays in registers. Where there are more rows than a tile the
// codes have been unpacked for all of them.
static inline __attribute__((always_inline)) void score_rows(
    const SelectJob *job, Weights weights, int pair, int place, const uint8_t *codes,
    __m512i (*unpacked)[MAX_DIM / 4], const __m512 *token_scales, float *running, int row, int tile,
    int dim) {
    size_t first = (size_t)pair * job->rows + row;
    const int8_t *bytes = job->bytes + first * dim;
    const float *factors = job->factors + first * 2;
    const float *centres = job->centre_scores + first * job->span + place;
    __m512i sums[SLABS][MAX_TILE];
    if (unpacked)
        unpacked_products(unpacked, bytes, dim, tile, sums);
    else
        packed_products(codes, bytes, dim, tile, sums);
    for (int r = 0; r < tile; r++) {
        __m512 scores[SLABS];
        for (int g = 0; g < SLABS; g++) {
            __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[g][r]),
                                           _mm512_set1_ps(factors[2 * r]),
                                           _mm512_set1_ps(factors[2 * r + 1]));
            scores[g] = _mm512_fmadd_ps(value, token_scales[g],
                                        _mm512_set1_ps(centres[(size_t)r * job->span]));
        }
        size_t at = (size_t)(row + r) * job->span + place;
        int small = job->per_chunk == MOST_GROUPS;
        __m512 first_two = small ? larger_halves_of_small(scores[0], scores[1])
                                 : larger_halves(scores[0], scores[1]);
        __m512 last_two = small ? larger_halves_of_small(scores[2], scores[3])
                                : larger_halves(scores[2], scores[3]);
        float *own = weights.sums + at * job->per_chunk;
        __m512 top = _mm512_max_ps(first_two, last_two);
        float *most = &running[row + r];
        weights.maxima[at] = *most;
        if (!_mm512_cmp_ps_mask(top, _mm512_set1_ps(*most + NEGLIGIBLE), _CMP_GT_OQ)) {
            memset(own, 0, sizeof(float) * job->per_chunk);
            continue;
        }
        if (_mm512_cmp_ps_mask(top, _mm512_set1_ps(*most), _CMP_GT_OQ))
            weights.maxima[at] = *most = _mm512_reduce_max_ps(top);
        __m512 base = _mm512_set1_ps(*most);
        first_two = exp2_near(_mm512_sub_ps(first_two, base));
        last_two = exp2_near(_mm512_sub_ps(last_two, base));
        if (small)
            _mm512_storeu_ps(own, sums_of_small_groups(first_two, last_two));
        else
            _mm_storeu_ps(own, sums_of_groups(first_two, last_two));
    }
}

static inline __attribute__((always_inline)) void score_chunk(
    const SelectJob *job, Weights weights, int pair, int place, float *running, int dim) {
    size_t entry =
        (size_t)(pair / job->blocks) * job->capacity_chunks + job->first_chunk + place;
    const uint8_t *codes = job->codes + entry * CHUNK * (dim / 4);
    const uint16_t *scales = job->scales + entry * CHUNK;
    __m512 token_scales[SLABS];
    for (int g = 0; g < SLABS; g++) token_scales[g] = load_bf16(scales + LANES * g);
    if (job->rows == 3) {  // an answer token of a model with three query heads a KV head
        score_rows(job, weights, pair, place, codes, NULL, token_scales, running, 0, 3, dim);
        return;
    }
    __m512i unpacked[SLABS][MAX_DIM / 4];
    for (int g = 0; g < SLABS; g++)
        for (int step = 0; step < dim / 4; step++)
            unpacked[g][step] = unpack(
                _mm512_loadu_si512(codes + (size_t)g * LANES * (dim / 4) + 64 * (step / 4)),
                step % 4);
    int row = 0;
    for (; row + 8 <= job->rows; row += 8)
        score_rows(job, weights, pair, place, codes, unpacked, token_scales, running, row, 8, dim);
    for (; row + 3 <= job->rows; row += 3)
        score_rows(job, weights, pair, place, codes, unpacked, token_scales, running, row, 3, dim);
    for (; row < job->rows; row++)
        score_rows(job, weights, pair, place, codes, unpacked, token_scales, running, row, 1, dim);
}
#else
static void score_chunk(const SelectJob *job, Weights weights, int pair, int place, float *running,
                        int dim) {
    size_t entry =
        (size_t)(pair / job->blocks) * job->capacity_chunks + job->first_chunk + place;
    const uint8_t *codes = job->codes + entry * CHUNK * (dim / 4);
    const uint16_t *scales = job->scales + entry * CHUNK;
    for (int row = 0; row < job->rows; row++) {
        size_t of_row = (size_t)pair * job->rows + row;
        const int8_t *bytes = job->bytes + of_row * dim;
        const float *factors = job->factors + of_row * 2;
        float centre = job->centre_scores[of_row * job->span + place];
        float scores[CHUNK], top = running[row];
        for (int slab = 0; slab < SLABS; slab++) {
            const uint8_t *of_slab = codes + (size_t)slab * LANES * (dim / 4);
            int32_t totals[LANES] = {0};
            for (int m = 0; m < dim / 16; m++)
                for (int i = 0; i < 4; i++) {
                    const int8_t *four = bytes + 16 * m + 4 * i;
                    for (int t = 0; t < LANES; t++)
                        for (int j = 0; j < 4; j++)
                            totals[t] += ((of_slab[64 * m + 4 * t + j] >> (2 * i)) & 3) * four[j];
                }
            for (int t = 0; t < LANES; t++) {
                float value = (float)totals[t] * factors[0] + factors[1];
                value = value * from_bf16(scales[LANES * slab + t]) + centre;
                scores[LANES * slab + t] = value;
                top = value > top ? value : top;
            }
        }
        running[row] = top;
        size_t at = (size_t)row * job->span + place;
        int size = CHUNK / job->per_chunk;
        for (int g = 0; g < job->per_chunk; g++) {
            float sum = 0;
            for (int t = size * g; t < size * g + size / 2; t++) {
                float other = scores[t + size / 2];
                sum += exp2_1((scores[t] > other ? scores[t] : other) - top);
            }
            weights.sums[at * job->per_chunk + g] = sum;
        }
        weights.maxima[at] = top;
    }
}
#endif

static void score_chunks(SelectJob *job, Weights weights, int pair, int first, int last) {
    float *running = malloc(sizeof(float) * job->rows);
    if (!running) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < job->rows; row++) running[row] = -INFINITY;
    for (int place = first; place < last; place++) {
        if (job->dim == 64)
            score_chunk(job, weights, pair, place, running, 64);
        else if (job->dim == 128)
            score_chunk(job, weights, pair, place, running, 128);
        else
            score_chunk(job, weights, pair, place, running, job->dim);
    }
    free(running);
}

// In place and orthonormal.
static void hadamard(float *values, int dim) {
    for (int half = 1; half < dim; half *= 2)
        for (int start = 0; start < dim; start += 2 * half)
            for (int i = start; i < start + half; i++) {
                float a = values[i], b = values[i + half];
                values[i] = a + b;
                values[i + half] = a - b;
            }
    float norm = 1.0f / sqrtf((float)dim);
    for (int d = 0; d < dim; d++) values[d] *= norm;
}

static float largest_of(const float *values, int count) {
    float lanes[LANES], top = values[0];
    for (int j = 0; j < LANES; j++) lanes[j] = top;
    int i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
    for (; i < count; i++) top = values[i] > top ? values[i] : top;
    for (int j = 0; j < LANES; j++) top = lanes[j] > top ? lanes[j] : top;
    return top;
}

static int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

// Copies the values whose bits reach `least`, in order; `out` may be `values`.
static int at_least(const float *values, int count, int32_t least, float *out) {
    int taken = 0, i = 0;
#ifdef HGA_AVX512_VNNI
    for (; i + LANES <= count; i += LANES) {
        __m512i some = _mm512_loadu_si512(values + i);
        __mmask16 kept = _mm512_cmpge_epi32_mask(some, _mm512_set1_epi32(least));
        _mm512_mask_compressstoreu_epi32(out + taken, kept, some);
        taken += __builtin_popcount(kept);
    }
#endif
    for (; i < count; i++)
        if (bits_of(values[i]) >= least) out[taken++] = values[i];
    return taken;
}

// A bound that k of the values reach, or, among equal ones, more: the k-th largest or a little below.
// Values that are not negative order as their bits do; it is found bit by bit, on the way among those
// that reach it so far, for which `reaching` has room.
static float bound_of_largest(const float *values, int count, int k, float *reaching) {
    int32_t found = 0;
    int reach = count, left = count;
    for (int bit = 30; bit >= 0 && reach != k; bit--) {
        int32_t least = found | 1 << bit;
        int above = 0;
        for (int i = 0; i < left; i++) above += bits_of(values[i]) >= least;
        if (above < k) continue;
        found = least;
        reach = above;
        if (reach > left / 4) continue;
        left = at_least(values, left, found, reaching);
        values = reaching;
    }
    float value;
    memcpy(&value, &found, 4);
    return value;
}

// Places of the k largest values, in order of place; of equal ones the first. -1 where there are no
// more, or where values are no numbers. `reaching` has room for all values.
static void largest(const float *values, int count, int k, int32_t *places, float *reaching) {
    int taken = 0;
    if (count > k) {
        float least = bound_of_largest(values, count, k, reaching);
        int above = 0;
        for (int i = 0; i < count; i++) above += values[i] > least;
        int equal = k - above;
        int i = 0;
        for (; i < count && taken < k; i++) {
#ifdef HGA_AVX512_VNNI
            while (i + LANES <= count &&
                   !_mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), _mm512_set1_ps(least), _CMP_GE_OQ))
                i += LANES;
            if (i == count) break;
#endif
            if (values[i] > least || (values[i] == least && equal-- > 0)) places[taken++] = i;
        }
    } else
        for (; taken < count; taken++) places[taken] = taken;
    for (; taken < k; taken++) places[taken] = -1;
}

static int chunks_of(const SelectJob *job, int pair) {
    int count = job->end_chunks[pair % job->blocks] - job->first_chunk;
    return count < 0 ? 0 : count;
}

// Scores of the summaries of one part of the chunks, for the rows of one pair.
static void score_centres(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts, part = item % job->parts;
    int dim = job->dim, rows = job->rows, count = chunks_of(job, pair);
    int first = (int)((int64_t)count * part / job->parts);
    int last = (int)((int64_t)count * (part + 1) / job->parts);
    const float *queries = job->queries + (size_t)pair * rows * dim;
    float *scores = job->centre_scores + (size_t)pair * rows * job->span;
    size_t head = pair / job->blocks;
    const uint16_t *summaries =
        job->summaries + (head * job->capacity_chunks + job->first_chunk) * dim;
    int chunk = first;
#ifdef HGA_AVX512_VNNI
    for (; chunk + 4 <= last; chunk += 4) {
        float wide[4 * MAX_DIM];
        for (int d = 0; d < 4 * dim; d += 16)
            _mm512_storeu_ps(wide + d, load_bf16(summaries + (size_t)chunk * dim + d));
        for (int row = 0; row < rows; row++) {
            __m512 sums[4];
            for (int c = 0; c < 4; c++) sums[c] = _mm512_setzero_ps();
            for (int d = 0; d < dim; d += 16) {
                __m512 query = _mm512_loadu_ps(queries + (size_t)row * dim + d);
                for (int c = 0; c < 4; c++)
                    sums[c] = _mm512_fmadd_ps(query, _mm512_loadu_ps(wide + c * dim + d), sums[c]);
            }
            _mm_storeu_ps(scores + (size_t)row * job->span + chunk,
                          _mm_mul_ps(four_sums(sums[0], sums[1], sums[2], sums[3]),
                                     _mm_set1_ps(LOG2_E)));
        }
    }
#endif
    for (; chunk < last; chunk++) {
        float wide[MAX_DIM];
        for (int d = 0; d < dim; d++) wide[d] = from_bf16(summaries[(size_t)chunk * dim + d]);
        for (int row = 0; row < rows; row++)
            scores[(size_t)row * job->span + chunk] =
                dot_float(queries + (size_t)row * dim, wide, dim) * LOG2_E;
    }
}

// Turns the queries of one pair to bytes.
static void turn_rows(void *context, int pair) {
    SelectJob *job = context;
    int dim = job->dim, rows = job->rows;
    const float *queries = job->queries + (size_t)pair * rows * dim;
    for (int row = 0; row < rows; row++) {
        size_t at = (size_t)pair * rows + row;
        float turned[MAX_DIM];
        memcpy(turned, queries + (size_t)row * dim, sizeof(float) * dim);
        hadamard(turned, dim);
        quantise_row(turned, job->bytes + at * dim, job->factors + at * 2, dim);
    }
}

// Adds the values of a chunk's groups, times a factor.
static inline void add_scaled(float *to, const float *values, float factor, int groups) {
#ifdef HGA_AVX512_VNNI
    if (groups == MOST_GROUPS)
        _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_loadu_ps(values), _mm512_set1_ps(factor),
                                             _mm512_loadu_ps(to)));
    else
        _mm_storeu_ps(to, _mm_fmadd_ps(_mm_loadu_ps(values), _mm_set1_ps(factor), _mm_loadu_ps(to)));
#else
    for (int g = 0; g < groups; g++) to[g] += values[g] * factor;
#endif
}

// Masses of the groups of a chunk by the fixed number of each, which is from 1 to MOST_MULTIPLE.
static void draw_odds(const SelectJob *job, int head, int chunk, const float *mass, float *odds) {
    uint32_t first = (uint32_t)(chunk * job->per_chunk) * GROUP_TURN +
                     (uint32_t)(job->layer * job->kv_heads + head) * HEAD_TURN;
    for (int g = 0; g < job->per_chunk; g++) {
        int32_t turned = (int32_t)((first + (uint32_t)g * GROUP_TURN) & (TURN - 1));
        float number = (float)turned * ((float)MOST_MULTIPLE / TURN);
        odds[g] = mass[g] / (number > 1.0f ? number : 1.0f);
    }
}

// Adds up the mass of each group over the rows of one pair and draws some of them.
static void take_groups(SelectJob *job, Weights weights, int pair) {
    int head = pair / job->blocks, block = pair % job->blocks;
    int span = job->span, budget = job->budget, present = chunks_of(job, pair);
    int per_chunk = job->per_chunk, cells = span * per_chunk;
    int32_t *groups = job->groups + ((size_t)block * job->kv_heads + head) * budget;
    float *multiples = job->multiples + ((size_t)block * job->kv_heads + head) * budget;
    float *mass = malloc(3 * (size_t)cells * sizeof(float)), *odds = mass + cells;
    if (!mass) {
        job->failed = 1;
        return;
    }
    memset(mass, 0, sizeof(float) * cells);
    for (int row = 0; row < job->rows && present; row++) {
        const float *sums = weights.sums + (size_t)row * cells;
        float *maxima = weights.maxima + (size_t)row * span;
        float top = largest_of(maxima, present), total = 0, others = 0;
        if (job->always) {
            others = job->always[(size_t)pair * job->rows + row] * LOG2_E;
            top = others > top ? others : top;
            others = exp2_1(others - top);
        }
        for (int place = 0; place < present; place++) {
            float under = maxima[place] - top;
            maxima[place] = exp2_finite(under > -126.0f ? under : -126.0f);
        }
        float lanes[MOST_GROUPS] = {0};
        for (int place = 0; place < present; place++)
            add_scaled(lanes, sums + place * per_chunk, maxima[place], per_chunk);
        for (int g = 0; g < MOST_GROUPS; g++) total += lanes[g];
        float inverse = 1.0f / (total + others);
        for (int place = 0; place < present; place++)
            add_scaled(mass + place * per_chunk, sums + place * per_chunk, maxima[place] * inverse,
                       per_chunk);
    }
    for (int place = 0; place < present; place++)
        draw_odds(job, head, job->first_chunk + place, mass + place * per_chunk,
                  odds + place * per_chunk);
    largest(odds, present * per_chunk, budget, groups, odds + cells);
    float bound = 0;
    if (present * per_chunk > budget) {
        bound = INFINITY;
        for (int place = 0; place < budget; place++)
            if (groups[place] >= 0 && odds[groups[place]] < bound) bound = odds[groups[place]];
        bound *= MOST_MULTIPLE;
    }
    for (int place = 0; place < budget; place++) {
        int cell = groups[place];
        multiples[place] = 1;
        if (cell < 0) continue;
        if (bound > mass[cell]) {
            float multiple = bound / mass[cell];
            multiples[place] = multiple < MOST_MULTIPLE ? multiple : MOST_MULTIPLE;
        }
        groups[place] = job->first_chunk * per_chunk + cell;
    }
    free(mass);
}

static void score_part(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts, part = item % job->parts, count = chunks_of(job, pair);
    score_chunks(job, weights_at(job, job->sums + size_of_weights(job) * pair), pair,
                 (int)((int64_t)count * part / job->parts),
                 (int)((int64_t)count * (part + 1) / job->parts));
}

static void take_pair(void *context, int pair) {
    SelectJob *job = context;
    take_groups(job, weights_at(job, job->sums + size_of_weights(job) * pair), pair);
}

// Both for a pair of its own, whose weights then stay in the cache.
static void score_and_take(void *context, int pair) {
    SelectJob *job = context;
    float *memory = malloc(size_of_weights(job) * sizeof(float));
    if (!memory) {
        job->failed = 1;
        return;
    }
    Weights weights = weights_at(job, memory);
    score_chunks(job, weights, pair, 0, chunks_of(job, pair));
    take_groups(job, weights, pair);
    free(memory);
}

int hga_select_groups(const float *queries, const uint16_t *summaries, const uint8_t *codes,
                      const uint16_t *scales, const int32_t *end_chunks, const float *always,
                      int32_t *groups, float *multiples, int blocks, int kv_heads, int rows,
                      int dim, int capacity_chunks, int first_chunk, int last_chunk, int budget,
                      int per_chunk, int layer) {
    int pairs = blocks * kv_heads, span = last_chunk - first_chunk;
    SelectJob job = {.queries = queries, .summaries = summaries, .codes = codes, .scales = scales,
                     .end_chunks = end_chunks, .always = always, .groups = groups,
                     .multiples = multiples,
                     .blocks = blocks, .kv_heads = kv_heads, .rows = rows, .dim = dim,
                     .capacity_chunks = capacity_chunks, .first_chunk = first_chunk, .span = span,
                     .budget = budget, .parts = pairs < 16 ? 8 : 1, .layer = layer, .per_chunk = per_chunk};
    size_t cells = (size_t)pairs * rows;
    job.centre_scores = malloc(cells * span * sizeof(float));
    job.sums = job.parts > 1 ? malloc(pairs * size_of_weights(&job) * sizeof(float)) : NULL;
    job.bytes = malloc(cells * dim);
    job.factors = malloc(cells * 2 * sizeof(float));
    if (!job.centre_scores || !job.bytes || !job.factors || (job.parts > 1 && !job.sums))
        job.failed = 1;
    else {
        parallel_for(score_centres, &job, pairs * job.parts);
        parallel_for(turn_rows, &job, pairs);
        parallel_for(job.parts > 1 ? score_part : score_and_take, &job, pairs * job.parts);
        if (job.parts > 1 && !job.failed) parallel_for(take_pair, &job, pairs);
    }
    free(job.centre_scores);
    free(job.sums);
    free(job.bytes);
    free(job.factors);
    return job.failed;
}

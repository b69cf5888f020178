// Chooses the groups a block of queries reads: the 2-bit token index estimates the attention mass of
// every group, of 2 or 16 tokens (of tokens t and t + half a group the larger counts), and groups are
// drawn by their mass.
//
// Codes of 16 tokens lie as [head_dim / 16][16 tokens][4 bytes]; byte j of slab m holds the codes of
// dimensions 16m + 4i + j for i = 0..3 in its bit pairs, so that unpacking pair i of a slab gives
// 16 tokens x 4 dimensions: the operand of a byte dot product with one lane per token.
#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "exp2.h"
#include "parallel.h"
#include "tiles.h"

enum { SMALL = 2, CHUNK = 64, MOST_GROUPS = CHUNK / SMALL, LANES = 16, SLABS = CHUNK / LANES,
       MAX_DIM = 256, MOST_TILED_DIM = 128, MAX_TILE = 8, SET = 16, AHEAD = 4 };
// Of reference.py.
enum { MAX_IMPORTANCE = 64, STRATA = 4, TURN = 1 << 24, GROUP_TURN = 0x9E3779, HEAD_TURN = 0xC13FA9 };

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
    float *importance;            // [blocks, kv_heads, budget]: how many groups each stands for
    int blocks, kv_heads, rows, dim, capacity_chunks, first_chunk, span, budget, parts, layer,
        per_chunk;  // groups of a chunk: MOST_GROUPS, or SLABS
    // Scratch, per pair of KV head and block; span is the widest range of chunks.
    float *centre_scores;  // [pairs, rows, span]: in log2 units
    int8_t *bytes;         // [pairs, tiled rows, dim]: of queries, in steps
    float *steps;          // [pairs, rows]: in log2 units, for codes that are odd numbers
    int32_t *starts;       // [pairs, rows]: what products with codes from 0 to 6 begin at
    float *memory;         // [pairs, size of Weights] if pairs are taken in parts, else [threads, ..]
    atomic_flag *taken;    // [threads]: whose memory is in use, if pairs are taken whole
    int has_tiles;         // whether products may be taken by the matrix unit
    int failed;
} SelectJob;

// Of one pair, whose chunks are taken in parts.
typedef struct {
    uint32_t *sums; // [span, half the rows, per_chunk]: bf16 weights of groups for two rows each,
    float *bases;   // [parts, rows]: relative to this, in log2 units
    float *totals;  // [parts, rows]: of those weights
    float *odds;    // [span, per_chunk], the chunks of each stratum side by side
} Weights;

static inline size_t in_lines(size_t floats) { return (floats + LANES - 1) / LANES * LANES; }

static inline int row_pairs(int rows) { return (rows + 1) / 2; }

// In floats, whole lines of the cache each. When all weights have been used there is room for one
// float a group in their place.
static size_t size_of_sums(const SelectJob *job) {
    return in_lines((size_t)row_pairs(job->rows) * job->span * job->per_chunk);
}

static size_t size_of_odds(const SelectJob *job) {
    return in_lines((size_t)job->span * job->per_chunk);
}

static size_t size_of_weights(const SelectJob *job) {
    return size_of_sums(job) + size_of_odds(job) + in_lines(2 * (size_t)job->rows * job->parts);
}

static Weights weights_at(const SelectJob *job, float *memory) {
    float *odds = memory + size_of_sums(job), *bases = odds + size_of_odds(job);
    return (Weights){(uint32_t *)memory, bases, bases + (size_t)job->rows * job->parts, odds};
}

// The chunks of one part of a pair, counted from the first that may be chosen from.
typedef struct {
    int number, first, last;
} Part;

static int chunks_of(const SelectJob *job, int pair) {
    int count = job->end_chunks[pair % job->blocks] - job->first_chunk;
    return count < 0 ? 0 : count;
}

// Rows of queries in bytes: whole tiles where the matrix unit takes their products.
static int tiled_rows(const SelectJob *job) {
    return job->has_tiles ? (job->rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS : job->rows;
}

// Groups that are drawn of a pair: a budget, or all there are.
static int filled_of(const SelectJob *job, int pair) {
    int present = chunks_of(job, pair) * job->per_chunk;
    return present < job->budget ? present : job->budget;
}

static Part part_of(const SelectJob *job, int pair, int number) {
    int64_t count = chunks_of(job, pair);
    int first = (int)(count * number / job->parts);
    return (Part){number, first, (int)(count * (number + 1) / job->parts)};
}

// Every n-th chunk of a pair, from which groups are drawn by themselves.
typedef struct {
    int chunk;         // the first that may be chosen
    int first, count;  // its groups in the odds
    int start, room;   // its part of the budget
} Stratum;

static int in_strata_before(int stratum, int end) {
    int rest = end % STRATA;
    return end / STRATA * stratum + (rest < stratum ? rest : stratum);
}

static Stratum stratum_of(const SelectJob *job, int pair, int number) {
    int first = job->first_chunk, chunks = chunks_of(job, pair), end = first + chunks;
    int before = in_strata_before(number, end) - in_strata_before(number, first);
    int after = in_strata_before(number + 1, end) - in_strata_before(number + 1, first);
    int64_t filled = filled_of(job, pair);
    int start = chunks ? (int)(filled * before / chunks) : 0;
    return (Stratum){.chunk = first + (number + STRATA - first % STRATA) % STRATA,
                     .first = before * job->per_chunk,
                     .count = (after - before) * job->per_chunk,
                     .start = start,
                     .room = chunks ? (int)(filled * after / chunks) - start : 0};
}

// The weights of one row in a part so far.
typedef struct {
    _Alignas(64) float lanes[LANES];  // their sums
    float base;                       // what they are relative to
} Running;

// Weights reach 2^HEADROOM before they are related to a larger score.
static const float HEADROOM = 64.0f;

// Weights of a chunk's groups for a row and the one it shares words with.
static inline uint32_t *sums_at(const SelectJob *job, const Weights *weights, int place, int row) {
    return weights->sums + ((size_t)place * row_pairs(job->rows) + row / 2) * job->per_chunk;
}

// The weight of a row in a word: rows of even numbers have the low half.
static inline float weight_in(uint32_t word, int row) {
    return from_bf16((uint16_t)(row % 2 ? word >> 16 : word));
}

static inline uint32_t with_weight(uint32_t word, int row, float weight) {
    uint32_t own = round_bf16(weight);
    return row % 2 ? (word & 0xffff) | own << 16 : (word & 0xffff0000) | own;
}

// Relates the weights of a row to a larger score, from the first chunk of a part up to `end`. It is a
// whole number, so that bf16 weights are rounded the same whatever they are related to.
static void raise_base(const SelectJob *job, const Weights *weights, Running *running, int row,
                       int first, int end, float base) {
    float shrink = exp2_1(running->base - base);
    running->base = base;
    for (int lane = 0; lane < LANES; lane++) running->lanes[lane] *= shrink;
    for (int place = first; place < end; place++) {
        uint32_t *sums = sums_at(job, weights, place, row);
        for (int g = 0; g < job->per_chunk; g++)
            sums[g] = with_weight(sums[g], row, weight_in(sums[g], row) * shrink);
    }
}

// Codes 0 to 3 stand for -3, -1, 1 and 3: twice the code, less 3.
static void quantise_row(const float *query, int8_t *bytes, float *step, int32_t *start, int dim) {
    float top = 0;
    for (int d = 0; d < dim; d++) {
        float size = fabsf(query[d]);
        top = size > top ? size : top;
    }
    float size = top > 0 ? top / 127.0f : 1.0f;
    int total = 0;
    for (int d = 0; d < dim; d++) {
        bytes[d] = (int8_t)lrintf(query[d] / size);
        total += bytes[d];
    }
    *step = LOG2_E * size / 2;
    *start = -3 * total;
}

static size_t entry_of(const SelectJob *job, int pair, int place) {
    return (size_t)(pair / job->blocks) * job->capacity_chunks + job->first_chunk + place;
}

static const uint8_t *codes_of(const SelectJob *job, int pair, int place, int dim) {
    return job->codes + entry_of(job, pair, place) * CHUNK * (dim / 4);
}

#ifdef HGA_AVX512_VNNI
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

// Of two vectors of 16 tokens those of the first halves of their groups, then those of the second
// halves, so that the larger of tokens t and t + half a group is one maximum.
static inline __attribute__((always_inline)) void part_halves(__m512i *a, __m512i *b, int per_chunk) {
    if (per_chunk == MOST_GROUPS) {
        const __m512i even =
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        __m512i first = _mm512_permutex2var_epi32(*a, even, *b);
        *b = _mm512_permutex2var_epi32(*a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), *b);
        *a = first;
    } else {
        __m512i first = _mm512_shuffle_i32x4(*a, *b, 0x44);
        *b = _mm512_shuffle_i32x4(*a, *b, 0xee);
        *a = first;
    }
}

// Slab m of the codes of a chunk, its tokens in halves of groups.
static inline __attribute__((always_inline)) void load_slabs(const uint8_t *codes, int m, int dim,
                                                             int per_chunk, __m512i slabs[SLABS]) {
    for (int g = 0; g < SLABS; g++)
        slabs[g] = _mm512_loadu_si512(codes + (size_t)g * LANES * (dim / 4) + 64 * m);
    part_halves(&slabs[0], &slabs[1], per_chunk);
    part_halves(&slabs[2], &slabs[3], per_chunk);
}

// Pair i of a slab: twice the codes of dimensions 16m + 4i to 16m + 4i + 3 of 16 tokens.
static inline __attribute__((always_inline)) __m512i unpack(__m512i slab, int i) {
    __m512i shifted = i ? _mm512_srli_epi16(slab, 2 * i - 1) : _mm512_slli_epi16(slab, 1);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(6));
}

static inline __m512i of_query(const int8_t *bytes) {
    int32_t four;
    memcpy(&four, bytes, 4);
    return _mm512_set1_epi32(four);
}

// Products of `tile` queries with the tokens of one chunk, unpacked on the way: where there are no
// more rows.
static inline __attribute__((always_inline)) void packed_products(
    const uint8_t *codes, const int8_t *bytes, const int32_t *starts, int dim, int per_chunk,
    int tile, __m512i sums[MAX_TILE][SLABS]) {
    for (int r = 0; r < tile; r++)
        for (int g = 0; g < SLABS; g++) sums[r][g] = _mm512_set1_epi32(starts[r]);
    for (int m = 0; m < dim / 16; m++) {
        __m512i slabs[SLABS];
        load_slabs(codes, m, dim, per_chunk, slabs);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __m512i of_pair[SLABS];
            for (int g = 0; g < SLABS; g++) of_pair[g] = unpack(slabs[g], i);
            for (int r = 0; r < tile; r++) {
                __m512i query = of_query(bytes + (size_t)r * dim + 16 * m + 4 * i);
                for (int g = 0; g < SLABS; g++)
                    sums[r][g] = _mm512_dpbusd_epi32(sums[r][g], of_pair[g], query);
            }
        }
    }
}

// The same with codes that were unpacked for all rows.
static inline __attribute__((always_inline)) void unpacked_products(
    const __m512i *unpacked, const int8_t *bytes, const int32_t *starts, int dim, int tile,
    __m512i sums[MAX_TILE][SLABS]) {
    for (int g = 0; g < SLABS; g++) {
        for (int r = 0; r < tile; r++) sums[r][g] = _mm512_set1_epi32(starts[r]);
        for (int step = 0; step < dim / 4; step++)
            for (int r = 0; r < tile; r++)
                sums[r][g] = _mm512_dpbusd_epi32(sums[r][g], unpacked[g * (dim / 4) + step],
                                                 of_query(bytes + (size_t)r * dim + 4 * step));
    }
}

// Sums of each eight lanes of two vectors, in the order of groups of 16.
static inline __m512 sums_of_groups(__m512 first, __m512 last) {
    __m512 sums = _mm512_add_ps(_mm512_shuffle_f32x4(first, last, 0x88),
                                _mm512_shuffle_f32x4(first, last, 0xdd));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xb1));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0x4e));
    const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(places, sums);
}

// bf16 weights of two rows in words: of halves the larger number.
static inline __m512i in_words(__m512 low, __m512 high) {
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    __m512i own = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(low), half), 16);
    __m512i other = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_ternarylogic_epi32(own, other, mask, 0xf8);  // own | (other & mask)
}

// One chunk of a pair, and what is known of its rows.
typedef struct {
    const SelectJob *job;
    Weights weights;
    Running *running;
    int first, place;      // the first chunk of the part, and this one
    const float *centres;  // of the first row; others `span` apart
    const float *steps;
    const int8_t *bytes;
    const int32_t *starts;
    const uint8_t *codes;
    __m512 scales[SLABS];  // of the tokens in halves of groups
} Chunk;

// What the halves of the chunk's groups weigh for one row, from its products with the tokens.
static inline __attribute__((always_inline)) void weigh_row(const Chunk *chunk, int row,
                                                            const __m512i *sums, int apart,
                                                            __m512 out[2]) {
    float centre = chunk->centres[(size_t)row * chunk->job->span];
    __m512 step = _mm512_set1_ps(chunk->steps[row]), larger[2];
    for (int h = 0; h < 2; h++)
        larger[h] = _mm512_max_ps(
            _mm512_mul_ps(_mm512_cvtepi32_ps(sums[2 * h * apart]), chunk->scales[2 * h]),
            _mm512_mul_ps(_mm512_cvtepi32_ps(sums[(2 * h + 1) * apart]), chunk->scales[2 * h + 1]));
    Running *own = &chunk->running[row];
    __m512 above = _mm512_set1_ps(centre - own->base);
    __m512 scores[2] = {_mm512_fmadd_ps(larger[0], step, above),
                        _mm512_fmadd_ps(larger[1], step, above)};
    __m512 top = _mm512_max_ps(scores[0], scores[1]);
    if (__builtin_expect(_mm512_cmp_ps_mask(top, _mm512_set1_ps(HEADROOM), _CMP_GT_OQ), 0)) {
        float most = _mm512_reduce_max_ps(_mm512_max_ps(larger[0], larger[1]));
        raise_base(chunk->job, &chunk->weights, own, row, chunk->first, chunk->place,
                   ceilf(most * chunk->steps[row] + centre));
        above = _mm512_set1_ps(centre - own->base);
        for (int h = 0; h < 2; h++) scores[h] = _mm512_fmadd_ps(larger[h], step, above);
    }
    for (int h = 0; h < 2; h++) out[h] = exp2_near(scores[h]);
    __m512 both = _mm512_add_ps(out[0], out[1]);
    _mm512_store_ps(own->lanes, _mm512_add_ps(_mm512_load_ps(own->lanes), both));
}

// Weights of the chunk's groups for one or two rows, that share words.
static inline __attribute__((always_inline)) void weigh_rows(const Chunk *chunk, int row, int count,
                                                             const __m512i *sums, int apart,
                                                             int next, int per_chunk) {
    __m512 found[2][2] = {{_mm512_setzero_ps(), _mm512_setzero_ps()},
                          {_mm512_setzero_ps(), _mm512_setzero_ps()}};
#pragma unroll
    for (int r = 0; r < count; r++) weigh_row(chunk, row + r, sums + r * next, apart, found[r]);
    uint32_t *out = sums_at(chunk->job, &chunk->weights, chunk->place, row);
    if (per_chunk == MOST_GROUPS) {
        _mm512_storeu_si512(out, in_words(found[0][0], found[1][0]));
        _mm512_storeu_si512(out + LANES, in_words(found[0][1], found[1][1]));
    } else {
        __m512i words = in_words(sums_of_groups(found[0][0], found[0][1]),
                                 sums_of_groups(found[1][0], found[1][1]));
        _mm_storeu_si128((__m128i *)out, _mm512_castsi512_si128(words));
    }
}

// Weights of one chunk for `tile` rows from `row` on, an even number. tile, and for the usual models
// dim and per_chunk, are constants where this is called, so that everything stays in registers. The
// codes have been unpacked for all rows, or not at all.
static inline __attribute__((always_inline)) void score_rows(const Chunk *chunk,
                                                             const __m512i *unpacked, int row,
                                                             int tile, int dim, int per_chunk) {
    const int8_t *bytes = chunk->bytes + (size_t)row * dim;
    const int32_t *starts = chunk->starts + row;
    __m512i sums[MAX_TILE][SLABS];
    if (unpacked)
        unpacked_products(unpacked, bytes, starts, dim, tile, sums);
    else
        packed_products(chunk->codes, bytes, starts, dim, per_chunk, tile, sums);
#pragma unroll
    for (int r = 0; r < tile; r += 2)
        weigh_rows(chunk, row + r, tile - r < 2 ? 1 : 2, sums[r], 1, SLABS, per_chunk);
}

static inline __attribute__((always_inline)) Chunk chunk_at(const SelectJob *job, Weights weights,
                                                            Running *running, int pair, int first,
                                                            int place, int dim, int per_chunk) {
    size_t rows = (size_t)pair * job->rows;
    Chunk chunk = {.job = job, .weights = weights, .running = running, .first = first,
                   .place = place, .centres = job->centre_scores + rows * job->span + place,
                   .steps = job->steps + rows, .starts = job->starts + rows,
                   .bytes = job->bytes + (size_t)pair * tiled_rows(job) * dim,
                   .codes = codes_of(job, pair, place, dim)};
    const uint16_t *scales = job->scales + entry_of(job, pair, place) * CHUNK;
    // What is read some chunks later comes to the cache meanwhile.
    for (int line = 0; line < CHUNK; line += 32)
        _mm_prefetch((const char *)(scales + AHEAD * CHUNK + line), _MM_HINT_T0);
    for (int g = 0; g < SLABS; g += 2) {
        __m512i one = _mm512_castps_si512(load_bf16(scales + LANES * g));
        __m512i other = _mm512_castps_si512(load_bf16(scales + LANES * (g + 1)));
        part_halves(&one, &other, per_chunk);
        chunk.scales[g] = _mm512_castsi512_ps(one);
        chunk.scales[g + 1] = _mm512_castsi512_ps(other);
    }
    return chunk;
}

static inline void prefetch_codes(const uint8_t *codes, int dim) {
    const char *later = (const char *)codes + AHEAD * CHUNK * (dim / 4);
    for (int line = 0; line < CHUNK * (dim / 4); line += 64)
        _mm_prefetch(later + line, _MM_HINT_T0);
}

// Twice the codes of a chunk, less an offset, a byte each: [SLABS][dim / 4] vectors.
static inline __attribute__((always_inline)) void unpack_chunk(
    const uint8_t *codes, int offset, int dim, int per_chunk, __m512i *unpacked) {
    prefetch_codes(codes, dim);
    for (int m = 0; m < dim / 16; m++) {
        __m512i slabs[SLABS];
        load_slabs(codes, m, dim, per_chunk, slabs);
#pragma unroll
        for (int i = 0; i < 4; i++)
            for (int g = 0; g < SLABS; g++)
                unpacked[g * (dim / 4) + 4 * m + i] =
                    _mm512_sub_epi8(unpack(slabs[g], i), _mm512_set1_epi8((char)offset));
    }
}

static inline __attribute__((always_inline)) void score_chunk(
    const SelectJob *job, Weights weights, int pair, int first, int place, Running *running,
    int dim, int per_chunk) {
    Chunk chunk = chunk_at(job, weights, running, pair, first, place, dim, per_chunk);
    if (job->rows == 3) {  // an answer token of a model with three query heads a KV head
        prefetch_codes(chunk.codes, dim);
        score_rows(&chunk, NULL, 0, 3, dim, per_chunk);
        return;
    }
    __m512i unpacked[SLABS * MAX_DIM / 4];
    unpack_chunk(chunk.codes, 0, dim, per_chunk, unpacked);
    int row = 0;
    for (; row + 8 <= job->rows; row += 8) score_rows(&chunk, unpacked, row, 8, dim, per_chunk);
    for (; row + 2 <= job->rows; row += 2) score_rows(&chunk, unpacked, row, 2, dim, per_chunk);
    if (row < job->rows) score_rows(&chunk, unpacked, row, 1, dim, per_chunk);
}

#ifdef HGA_AMX
// Products of TILE_ROWS rows with the tokens of one chunk: [SLABS][TILE_ROWS][LANES].
static inline __attribute__((always_inline)) void tile_products(const __m512i *unpacked,
                                                                const int8_t *bytes, int dim,
                                                                int32_t *products) {
    clear_sums();
    for (int part = 0; part < dim / 64; part++) {
        const __m512i *tokens = unpacked + 16 * part;
        _tile_loadd(4, bytes + 64 * part, dim);
        _tile_loadd(5, tokens, 64);
        _tile_loadd(6, tokens + dim / 4, 64);
        _tile_dpbssd(0, 4, 5);
        _tile_loadd(7, tokens + 2 * (dim / 4), 64);
        _tile_dpbssd(1, 4, 6);
        _tile_loadd(5, tokens + 3 * (dim / 4), 64);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(3, 4, 5);
    }
    store_sums(products, sizeof *products * TILE_ROWS * LANES, 64);
}

// Weights of a part of the chunks. The matrix unit takes products of the next rows while some are
// weighed; what it loads was stored a chunk before, as it waits for stores to be done.
static inline __attribute__((always_inline)) void score_by_unit(
    const SelectJob *job, Weights weights, int pair, Part part, Running *running, int dim,
    int per_chunk) {
    __m512i unpacked[2][SLABS * MOST_TILED_DIM / 4];
    _Alignas(64) int32_t products[2][TILE_ROWS * CHUNK];
    int tiles = tiled_rows(job) / TILE_ROWS, buffer = 0;
    const int8_t *bytes = job->bytes + (size_t)pair * tiles * TILE_ROWS * dim;
    if (part.first == part.last) return;
    set_tiles();
    for (int place = part.first; place < part.first + 2 && place < part.last; place++)
        unpack_chunk(codes_of(job, pair, place, dim), 3, dim, per_chunk, unpacked[place & 1]);
    tile_products(unpacked[part.first & 1], bytes, dim, products[0]);
    for (int place = part.first; place < part.last; place++) {
        Chunk chunk = chunk_at(job, weights, running, pair, part.first, place, dim, per_chunk);
        for (int tile = 0; tile < tiles; tile++, buffer ^= 1) {
            int next = (tile + 1) % tiles, next_place = next ? place : place + 1;
            if (next_place < part.last)
                tile_products(unpacked[next_place & 1], bytes + (size_t)next * TILE_ROWS * dim, dim,
                              products[buffer ^ 1]);
            const __m512i *sums = (const __m512i *)products[buffer];
            int row = tile * TILE_ROWS, end = row + TILE_ROWS;
            end = end < job->rows ? end : job->rows;
            for (; row + 2 <= end; row += 2, sums += 2)
                weigh_rows(&chunk, row, 2, sums, TILE_ROWS, 1, per_chunk);
            if (row < end) weigh_rows(&chunk, row, 1, sums, TILE_ROWS, 1, per_chunk);
        }
        if (place + 2 < part.last)
            unpack_chunk(codes_of(job, pair, place + 2, dim), 3, dim, per_chunk,
                         unpacked[place & 1]);
    }
    _tile_release();
}
#endif
#else
static void score_chunk(const SelectJob *job, Weights weights, int pair, int first, int place,
                        Running *running, int dim, int per_chunk) {
    const uint8_t *codes = codes_of(job, pair, place, dim);
    const uint16_t *scales = job->scales + entry_of(job, pair, place) * CHUNK;
    for (int row = 0; row < job->rows; row++) {
        size_t of_row = (size_t)pair * job->rows + row;
        const int8_t *bytes = job->bytes + of_row * dim;
        float centre = job->centre_scores[of_row * job->span + place];
        float scores[CHUNK], top = -INFINITY;
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
                float value = (float)(2 * totals[t] + job->starts[of_row]) * job->steps[of_row];
                value = value * from_bf16(scales[LANES * slab + t]) + centre;
                scores[LANES * slab + t] = value;
                top = value > top ? value : top;
            }
        }
        Running *own = &running[row];
        if (top > own->base + HEADROOM)
            raise_base(job, &weights, own, row, first, place, ceilf(top));
        int size = CHUNK / per_chunk;
        uint32_t *out = sums_at(job, &weights, place, row);
        for (int g = 0; g < per_chunk; g++) {
            float sum = 0;
            for (int t = size * g; t < size * g + size / 2; t++) {
                float other = scores[t + size / 2];
                sum += exp2_1((scores[t] > other ? scores[t] : other) - own->base);
            }
            out[g] = with_weight(row % 2 ? out[g] : 0, row, sum);
            own->lanes[g % LANES] += sum;
        }
    }
}
#endif

static inline __attribute__((always_inline)) void score_chunks_as(
    const SelectJob *job, Weights weights, int pair, Part part, Running *running, int dim,
    int per_chunk) {
#ifdef HGA_AMX
    if (job->has_tiles) {
        score_by_unit(job, weights, pair, part, running, dim, per_chunk);
        return;
    }
#endif
    for (int place = part.first; place < part.last; place++)
        score_chunk(job, weights, pair, part.first, place, running, dim, per_chunk);
}

static void score_chunks(SelectJob *job, Weights weights, int pair, Part part) {
    int rows = job->rows;
    Running *running = aligned_alloc(64, rows * sizeof *running);
    if (!running) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < rows; row++) running[row] = (Running){.base = -INFINITY};
    if (job->dim == 64 && job->per_chunk == MOST_GROUPS)
        score_chunks_as(job, weights, pair, part, running, 64, MOST_GROUPS);
    else if (job->dim == 64)
        score_chunks_as(job, weights, pair, part, running, 64, SLABS);
    else if (job->dim == 128 && job->per_chunk == MOST_GROUPS)
        score_chunks_as(job, weights, pair, part, running, 128, MOST_GROUPS);
    else
        score_chunks_as(job, weights, pair, part, running, job->dim, job->per_chunk);
    for (int row = 0; row < rows; row++) {
        float total = 0;
        for (int lane = 0; lane < LANES; lane++) total += running[row].lanes[lane];
        weights.bases[part.number * rows + row] = running[row].base;
        weights.totals[part.number * rows + row] = total;
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
        // Whole vectors are stored: what is behind those that are kept comes later.
        _mm512_storeu_si512(out + taken, _mm512_maskz_compress_epi32(kept, some));
        taken += __builtin_popcount(kept);
    }
#endif
    for (; i < count; i++)
        if (bits_of(values[i]) >= least) out[taken++] = values[i];
    return taken;
}

// Maxima of sets of SET values each, without what is left over; returns how many.
static int maxima_of_sets(const float *values, int count, float *maxima) {
    int sets = 0;
    for (; (sets + LANES) * SET <= count; sets += LANES) {
        const float *first = values + (size_t)sets * SET;
        float lanes[LANES];
        memcpy(lanes, first, sizeof lanes);
        for (int i = LANES; i < LANES * SET; i += LANES)
            for (int j = 0; j < LANES; j++)
                lanes[j] = first[i + j] > lanes[j] ? first[i + j] : lanes[j];
        memcpy(maxima + sets, lanes, sizeof lanes);
    }
    return sets;
}

// A bound that k of the values reach, or, among equal ones, more: the k-th largest or a little below.
// Values that are not negative order as their bits do; it is found bit by bit, on the way among those
// that reach it so far, for which `reaching` has room. It may be `values`.
static int32_t bound_of(const float *values, int count, int k, float *reaching) {
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
    return found;
}

// The same among few of the values: as many as k reach what k maxima of sets do.
static float bound_of_largest(const float *values, int count, int k, float *reaching) {
    int sets = maxima_of_sets(values, count, reaching);
    int32_t least = 0;
    if (sets >= k) {
        least = bound_of(reaching, sets, k, reaching);
        count = at_least(values, count, least, reaching);
        values = reaching;
    }
    int32_t found = bound_of(values, count, k, reaching);
    found = found > least ? found : least;
    float bound;
    memcpy(&bound, &found, 4);
    return bound;
}

// Places of the values that reach `least`, in order; there is room for one of every value.
static int places_at_least(const float *values, int count, float least, int32_t *places) {
    int taken = 0, i = 0;
#ifdef HGA_AVX512_VNNI
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + LANES <= count; i += LANES) {
        __mmask16 kept = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), _mm512_set1_ps(least),
                                            _CMP_GE_OQ);
        __m512i own = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
        _mm512_storeu_si512(places + taken, _mm512_maskz_compress_epi32(kept, own));
        taken += __builtin_popcount(kept);
    }
#endif
    for (; i < count; i++)
        if (values[i] >= least) places[taken++] = i;
    return taken;
}

// Places of the k largest values, in order of place; of equal ones the first. -1 where there are no
// more, or where values are no numbers. `memory` has room for all values.
static void largest(const float *values, int count, int k, int32_t *places, void *memory) {
    int taken = 0;
    if (count > k) {
        float least = bound_of_largest(values, count, k, memory);
        const int32_t *some = memory;
        int reach = places_at_least(values, count, least, memory), equal = k;
        for (int i = 0; i < reach; i++) equal -= values[some[i]] > least;
        for (int i = 0; i < reach; i++)
            if (values[some[i]] > least || equal-- > 0) places[taken++] = some[i];
    } else
        for (; taken < count; taken++) places[taken] = taken;
    for (; taken < k; taken++) places[taken] = -1;
}

// Scores of the summaries of one part of the chunks, for the rows of one pair.
static void score_centres(SelectJob *job, int pair, Part part) {
    int dim = job->dim, rows = job->rows, chunk = part.first, last = part.last;
    const float *queries = job->queries + (size_t)pair * rows * dim;
    float *scores = job->centre_scores + (size_t)pair * rows * job->span;
    size_t head = pair / job->blocks;
    const uint16_t *summaries =
        job->summaries + (head * job->capacity_chunks + job->first_chunk) * dim;
#ifdef HGA_AVX512_VNNI
    for (; chunk + 4 <= last; chunk += 4) {
        float wide[4 * MAX_DIM];
        for (int d = 0; d < 4 * dim; d += 32)
            _mm_prefetch((const char *)(summaries + (size_t)(chunk + 4 * AHEAD) * dim + d),
                         _MM_HINT_T0);
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
    int8_t *bytes = job->bytes + (size_t)pair * tiled_rows(job) * dim;
    for (int row = 0; row < rows; row++) {
        size_t at = (size_t)pair * rows + row;
        float turned[MAX_DIM];
        memcpy(turned, queries + (size_t)row * dim, sizeof(float) * dim);
        hadamard(turned, dim);
        quantise_row(turned, bytes + (size_t)row * dim, job->steps + at, job->starts + at, dim);
    }
}

// The fixed number of a group, from 1 to MAX_IMPORTANCE.
static inline float number_of(const SelectJob *job, int head, int group) {
    uint32_t turned = (uint32_t)group * GROUP_TURN +
                      (uint32_t)(job->layer * job->kv_heads + head) * HEAD_TURN;
    float number = (float)(int32_t)(turned & (TURN - 1)) * ((float)MAX_IMPORTANCE / TURN);
    return number > 1.0f ? number : 1.0f;
}

// Adds up the masses of the groups of a chunk over the rows, and divides them by their numbers.
// There is a share for every half of a word.
static inline __attribute__((always_inline)) void odds_of(const SelectJob *job, int head, int chunk,
                                                          const uint32_t *sums, const float *shares,
                                                          float *odds, int groups) {
    float mass[MOST_GROUPS] = {0};
    for (int row = 0; row < job->rows; row += 2, sums += groups)
        for (int g = 0; g < groups; g++)
            mass[g] += weight_in(sums[g], 0) * shares[row] + weight_in(sums[g], 1) * shares[row + 1];
    for (int g = 0; g < groups; g++)
        odds[g] = mass[g] / number_of(job, head, chunk * groups + g);
}

// What the weights of a row in one part have to be multiplied with to be shares of the whole.
static float share_of(const SelectJob *job, Weights weights, int pair, int row, int part) {
    int rows = job->rows;
    float others = 0, total = 0, top = -INFINITY;
    for (int p = 0; p < job->parts; p++) {
        float base = weights.bases[p * rows + row];
        top = base > top ? base : top;
    }
    if (job->always) {
        others = job->always[(size_t)pair * rows + row] * LOG2_E;
        top = others > top ? others : top;
        others = exp2_1(others - top);
    }
    for (int p = 0; p < job->parts; p++)
        total += weights.totals[p * rows + row] * exp2_1(weights.bases[p * rows + row] - top);
    return exp2_1(weights.bases[part * rows + row] - top) / (total + others);
}

// Odds of all groups of one part to be drawn.
static void find_odds(SelectJob *job, Weights weights, int pair, Part part) {
    if (part.first == part.last) return;
    int head = pair / job->blocks, rows = job->rows, per_chunk = job->per_chunk;
    float *shares = calloc(2 * row_pairs(rows), sizeof *shares);
    if (!shares) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < rows; row++)
        shares[row] = share_of(job, weights, pair, row, part.number);
    Stratum strata[STRATA];
    for (int number = 0; number < STRATA; number++) strata[number] = stratum_of(job, pair, number);
    for (int place = part.first; place < part.last; place++) {
        int chunk = job->first_chunk + place;
        Stratum own = strata[chunk % STRATA];
        const uint32_t *sums = sums_at(job, &weights, place, 0);
        float *odds = weights.odds + own.first + (chunk - own.chunk) / STRATA * per_chunk;
        if (per_chunk == MOST_GROUPS)
            odds_of(job, head, chunk, sums, shares, odds, MOST_GROUPS);
        else
            odds_of(job, head, chunk, sums, shares, odds, SLABS);
    }
    free(shares);
}

// Which groups the places of a stratum are, and how many each stands for; of `per_chunk` a constant is
// made where this is called.
static inline __attribute__((always_inline)) void name_groups(
    const SelectJob *job, int head, Stratum own, const float *odds, const int32_t *places,
    float bound, int32_t *groups, float *importance, int per_chunk) {
    for (int i = 0; i < own.room; i++) {
        int place = places[i];
        int held = place >= 0 ? place : 0;
        int group = (own.chunk + held / per_chunk * STRATA) * per_chunk + held % per_chunk;
        float multiple = bound / (odds[held] * number_of(job, head, group));
        multiple = multiple > 1.0f ? multiple : 1.0f;  // of no mass and no bound as well
        multiple = multiple < MAX_IMPORTANCE ? multiple : MAX_IMPORTANCE;
        groups[i] = place >= 0 ? group : -1;
        importance[i] = place >= 0 ? multiple : 1.0f;
    }
}

// Draws groups of one stratum of a pair.
static void draw_groups(SelectJob *job, Weights weights, int pair, int number) {
    int head = pair / job->blocks, block = pair % job->blocks;
    Stratum own = stratum_of(job, pair, number);
    size_t start = ((size_t)block * job->kv_heads + head) * job->budget;
    int32_t *groups = job->groups + start + own.start;
    float *importance = job->importance + start + own.start;
    const float *odds = weights.odds + own.first;
    int32_t *places = malloc(sizeof(int32_t) * (own.room + 1));
    if (!places) {
        job->failed = 1;
        return;
    }
    // One more than there is room for. All weights have been used.
    largest(odds, own.count, own.room + 1, places, (float *)weights.sums + own.first);
    float bound = 0;
    if (places[own.room] >= 0) {
        int left_out = own.room;
        for (int i = own.room - 1; i >= 0; i--)
            if (odds[places[i]] < odds[places[left_out]]) left_out = i;
        bound = odds[places[left_out]] * MAX_IMPORTANCE;
        memmove(places + left_out, places + left_out + 1,
                sizeof(int32_t) * (own.room - left_out));
    }
    if (job->per_chunk == MOST_GROUPS)
        name_groups(job, head, own, odds, places, bound, groups, importance, MOST_GROUPS);
    else
        name_groups(job, head, own, odds, places, bound, groups, importance, SLABS);
    free(places);
    for (int i = number ? job->budget : filled_of(job, pair); i < job->budget; i++) {
        job->groups[start + i] = -1;
        job->importance[start + i] = 1;
    }
}

static Weights weights_of(const SelectJob *job, int number) {
    return weights_at(job, job->memory + size_of_weights(job) * number);
}

static void score_part(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts;
    Part part = part_of(job, pair, item % job->parts);
    score_centres(job, pair, part);
    score_chunks(job, weights_of(job, pair), pair, part);
}

static void find_odds_of_part(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts;
    find_odds(job, weights_of(job, pair), pair, part_of(job, pair, item % job->parts));
}

static void draw_of_stratum(void *context, int item) {
    SelectJob *job = context;
    int pair = item / STRATA;
    draw_groups(job, weights_of(job, pair), pair, item % STRATA);
}

// All for a pair of its own, whose weights then stay in the cache.
static void score_and_draw(void *context, int pair) {
    SelectJob *job = context;
    int thread = 0;  // as many run at a time
    while (atomic_flag_test_and_set(&job->taken[thread])) thread = (thread + 1) % threads_running();
    Weights weights = weights_of(job, thread);
    Part all = part_of(job, pair, 0);
    score_centres(job, pair, all);
    score_chunks(job, weights, pair, all);
    find_odds(job, weights, pair, all);
    for (int number = 0; number < STRATA; number++) draw_groups(job, weights, pair, number);
    atomic_flag_clear(&job->taken[thread]);
}

int hga_select_groups(const float *queries, const uint16_t *summaries, const uint8_t *codes,
                      const uint16_t *scales, const int32_t *end_chunks, const float *always,
                      int32_t *groups, float *importance, int blocks, int kv_heads, int rows,
                      int dim, int capacity_chunks, int first_chunk, int last_chunk, int budget,
                      int per_chunk, int layer) {
    int pairs = blocks * kv_heads, span = last_chunk - first_chunk;
    SelectJob job = {.queries = queries, .summaries = summaries, .codes = codes, .scales = scales,
                     .end_chunks = end_chunks, .always = always, .groups = groups,
                     .importance = importance,
                     .blocks = blocks, .kv_heads = kv_heads, .rows = rows, .dim = dim,
                     .capacity_chunks = capacity_chunks, .first_chunk = first_chunk, .span = span,
                     .budget = budget, .parts = pairs < 16 ? 4 : 1, .layer = layer,
                     .per_chunk = per_chunk,
                     .has_tiles = rows >= TILE_ROWS && (dim == 64 || dim == 128) && may_use_tiles()};
    size_t cells = (size_t)pairs * rows;
    int memories = job.parts > 1 ? pairs : threads_running();
    job.centre_scores = malloc(cells * span * sizeof(float));
    job.memory = aligned_alloc(64, memories * size_of_weights(&job) * sizeof(float));
    job.taken = malloc(memories * sizeof *job.taken);
    job.bytes = calloc((size_t)pairs * tiled_rows(&job), dim);
    job.steps = malloc(cells * sizeof *job.steps);
    job.starts = malloc(cells * sizeof *job.starts);
    if (!job.centre_scores || !job.memory || !job.taken || !job.bytes || !job.steps ||
        !job.starts)
        job.failed = 1;
    else {
        for (int number = 0; number < memories; number++) atomic_flag_clear(&job.taken[number]);
        parallel_for(turn_rows, &job, pairs);
        if (job.parts == 1)
            parallel_for(score_and_draw, &job, pairs);
        else {
            parallel_for(score_part, &job, pairs * job.parts);
            if (!job.failed) parallel_for(find_odds_of_part, &job, pairs * job.parts);
            if (!job.failed) parallel_for(draw_of_stratum, &job, pairs * STRATA);
        }
    }
    free(job.centre_scores);
    free(job.memory);
    free(job.taken);
    free(job.bytes);
    free(job.steps);
    free(job.starts);
    return job.failed;
}

// Estimates the attention mass of every group from the chunk summaries and the 2-bit token codes.
//
// Queries are rotated into the Hadamard domain and rounded to 8 bits, so that a token's score is a
// byte dot product with its code, times the token's scale, plus the score of its chunk's summary.
#include <stdlib.h>
#include <string.h>

#include "amx.h"
#include "exp2.h"
#include "select.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Rows scored together, and chunks that memory is prefetched ahead of their use.
enum { MAX_ROW_TILE = 8, AHEAD = 4, MAX_AMX_DIM = 128 };
_Static_assert(LANES == SLAB, "a lane per token of a slab");

// The weights of one row in a part, added up so far.
typedef struct {
    _Alignas(64) float lanes[LANES];  // sums
    float base;                       // the score that the weights are relative to
} RunningSum;

// Weights may reach 2^HEADROOM before the base is raised.
static const float HEADROOM = 64.0f;

static inline uint32_t with_weight(uint32_t word, int row, float weight) {
    uint32_t own = round_bf16(weight);
    return row % 2 ? (word & 0xffff) | own << 16 : (word & 0xffff0000) | own;
}

// Raises the base of a row, and rescales its weights of the candidates from `first` up to `end`. A
// base is a whole number, so that bf16 weights round the same way whatever the base.
static void raise_base(const SelectJob *job, const Weights *weights, RunningSum *running, int row,
                       int first, int end, float base) {
    float shrink = exp2_1(running->base - base);
    running->base = base;
    for (int lane = 0; lane < LANES; lane++) running->lanes[lane] *= shrink;
    for (int candidate = first; candidate < end; candidate++) {
        uint32_t *packed = packed_at(job, weights, candidate, row);
        for (int g = 0; g < job->per_chunk; g++)
            packed[g] = with_weight(packed[g], row, weight_in(packed[g], row) * shrink);
    }
}

// Codes 0 to 3 stand for -3, -1, 1 and 3 half steps: twice the code, less 3. The products are taken
// with twice the code, so `offset` is the sum of the query times -3.
static void quantise_row(const float *query, int8_t *quantised, float *step, int32_t *offset,
                         int dim) {
    float top = 0;
    for (int d = 0; d < dim; d++) {
        float size = fabsf(query[d]);
        top = size > top ? size : top;
    }
    float size = top > 0 ? top / 127.0f : 1.0f;
    int total = 0;
    for (int d = 0; d < dim; d++) {
        quantised[d] = (int8_t)lrintf(query[d] / size);
        total += quantised[d];
    }
    *step = LOG2_E * size / 2;
    *offset = -3 * total;
}

void quantise_queries(SelectJob *job, int pair) {
    int dim = job->dim, rows = job->rows;
    const float *queries = job->queries + (size_t)pair * rows * dim;
    int8_t *quantised = job->int8_queries + (size_t)pair * padded_rows(job) * dim;
    for (int row = 0; row < rows; row++) {
        size_t at = (size_t)pair * rows + row;
        float rotated[MAX_DIM];
        memcpy(rotated, queries + (size_t)row * dim, sizeof(float) * dim);
        hadamard(rotated, dim);
        quantise_row(rotated, quantised + (size_t)row * dim, job->steps + at, job->offsets + at,
                     dim);
    }
}

// Where a candidate's entry is in the index.
static size_t entry_of(const SelectJob *job, int pair, int candidate) {
    return (size_t)(pair / job->blocks) * job->capacity_chunks + job->first_chunk + candidate;
}

static const uint8_t *codes_of(const SelectJob *job, int pair, int candidate, int dim) {
    return job->codes + entry_of(job, pair, candidate) * CHUNK * (dim / 4);
}

#ifdef HGA_AVX512_VNNI
static inline __m512 load_bf16(const uint16_t *values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)values)), 16));
}

// The sum of the lanes of each of four vectors.
static inline __m128 four_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Sorts two vectors of 16 tokens by halves of groups: the first halves go to `a`, the second ones
// to `b`. The larger of tokens t and t + half a group is then one maximum.
static inline __attribute__((always_inline)) void split_halves(__m512i *a, __m512i *b,
                                                               int per_chunk) {
    if (per_chunk == GROUPS_OF_2) {
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

// Entry m of the codes of each slab of a chunk, its tokens sorted by halves of groups.
static inline __attribute__((always_inline)) void load_entries(
    const uint8_t *codes, int m, int dim, int per_chunk, __m512i entries[SLABS]) {
    for (int g = 0; g < SLABS; g++)
        entries[g] = _mm512_loadu_si512(codes + (size_t)g * SLAB * (dim / 4) + 64 * m);
    split_halves(&entries[0], &entries[1], per_chunk);
    split_halves(&entries[2], &entries[3], per_chunk);
}

// Bit pair i of entry m: twice the codes of dimensions 16m + 4i to 16m + 4i + 3 of 16 tokens.
static inline __attribute__((always_inline)) __m512i unpack(__m512i entry, int i) {
    __m512i shifted = i ? _mm512_srli_epi16(entry, 2 * i - 1) : _mm512_slli_epi16(entry, 1);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(6));
}

// Four dimensions of a query, in every lane.
static inline __m512i broadcast_query(const int8_t *query) {
    int32_t four;
    memcpy(&four, query, 4);
    return _mm512_set1_epi32(four);
}

// Products of `tile` queries with the tokens of a chunk, whose codes are unpacked on the way. For a
// chunk that no other rows are scored against.
static inline __attribute__((always_inline)) void packed_products(
    const uint8_t *codes, const int8_t *queries, const int32_t *offsets, int dim, int per_chunk,
    int tile, __m512i sums[MAX_ROW_TILE][SLABS]) {
    for (int r = 0; r < tile; r++)
        for (int g = 0; g < SLABS; g++) sums[r][g] = _mm512_set1_epi32(offsets[r]);
    for (int m = 0; m < dim / 16; m++) {
        __m512i entries[SLABS];
        load_entries(codes, m, dim, per_chunk, entries);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __m512i unpacked[SLABS];
            for (int g = 0; g < SLABS; g++) unpacked[g] = unpack(entries[g], i);
            for (int r = 0; r < tile; r++) {
                __m512i query = broadcast_query(queries + (size_t)r * dim + 16 * m + 4 * i);
                for (int g = 0; g < SLABS; g++)
                    sums[r][g] = _mm512_dpbusd_epi32(sums[r][g], unpacked[g], query);
            }
        }
    }
}

// The same with codes that were unpacked for all rows.
static inline __attribute__((always_inline)) void unpacked_products(
    const __m512i *unpacked, const int8_t *queries, const int32_t *offsets, int dim, int tile,
    __m512i sums[MAX_ROW_TILE][SLABS]) {
    for (int g = 0; g < SLABS; g++) {
        for (int r = 0; r < tile; r++) sums[r][g] = _mm512_set1_epi32(offsets[r]);
        for (int step = 0; step < dim / 4; step++)
            for (int r = 0; r < tile; r++) {
                __m512i query = broadcast_query(queries + (size_t)r * dim + 4 * step);
                sums[r][g] =
                    _mm512_dpbusd_epi32(sums[r][g], unpacked[g * (dim / 4) + step], query);
            }
    }
}

// Sums of eight neighbouring lanes of two vectors, in the order of their groups of 16.
static inline __m512 sums_of_groups(__m512 first, __m512 last) {
    __m512 sums = _mm512_add_ps(_mm512_shuffle_f32x4(first, last, 0x88),
                                _mm512_shuffle_f32x4(first, last, 0xdd));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xb1));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0x4e));
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(lanes, sums);
}

// Packs the weights of two rows into words of two bf16. Ties round up.
static inline __m512i pack_words(__m512 low, __m512 high) {
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    __m512i own = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(low), half), 16);
    __m512i other = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_ternarylogic_epi32(own, other, mask, 0xf8);  // own | (other & mask)
}

// One candidate of a pair, and the rows that are scored against it.
typedef struct {
    const SelectJob *job;
    Weights weights;
    RunningSum *running;
    int first, candidate;        // the first candidate of the part, and this one
    const float *centre_scores;  // of the first row; those of other rows are `span` apart
    const float *steps;
    const int8_t *int8_queries;
    const int32_t *offsets;
    const uint8_t *codes;
    __m512 scales[SLABS];  // of the tokens, sorted by halves of groups
} Chunk;

// Weights of the pairs of tokens that meet in the halves of groups, for one row, from its products
// with the tokens. The products of slabs are `slab_stride` vectors apart.
static inline __attribute__((always_inline)) void weigh_row(const Chunk *chunk, int row,
                                                            const __m512i *sums, int slab_stride,
                                                            __m512 out[2]) {
    float centre = chunk->centre_scores[(size_t)row * chunk->job->span];
    __m512 step = _mm512_set1_ps(chunk->steps[row]), larger[2];
    for (int h = 0; h < 2; h++)
        larger[h] = _mm512_max_ps(
            _mm512_mul_ps(_mm512_cvtepi32_ps(sums[2 * h * slab_stride]), chunk->scales[2 * h]),
            _mm512_mul_ps(_mm512_cvtepi32_ps(sums[(2 * h + 1) * slab_stride]),
                          chunk->scales[2 * h + 1]));
    RunningSum *own = &chunk->running[row];
    __m512 above = _mm512_set1_ps(centre - own->base);
    __m512 scores[2] = {_mm512_fmadd_ps(larger[0], step, above),
                        _mm512_fmadd_ps(larger[1], step, above)};
    __m512 top = _mm512_max_ps(scores[0], scores[1]);
    if (__builtin_expect(_mm512_cmp_ps_mask(top, _mm512_set1_ps(HEADROOM), _CMP_GT_OQ), 0)) {
        float most = _mm512_reduce_max_ps(_mm512_max_ps(larger[0], larger[1]));
        raise_base(chunk->job, &chunk->weights, own, row, chunk->first, chunk->candidate,
                   ceilf(most * chunk->steps[row] + centre));
        above = _mm512_set1_ps(centre - own->base);
        for (int h = 0; h < 2; h++) scores[h] = _mm512_fmadd_ps(larger[h], step, above);
    }
    for (int h = 0; h < 2; h++) out[h] = exp2_near(scores[h]);
    __m512 both = _mm512_add_ps(out[0], out[1]);
    _mm512_store_ps(own->lanes, _mm512_add_ps(_mm512_load_ps(own->lanes), both));
}

// Weights of the chunk's groups for the one or two rows that share words.
static inline __attribute__((always_inline)) void weigh_rows(const Chunk *chunk, int row, int count,
                                                             const __m512i *sums, int slab_stride,
                                                             int row_stride, int per_chunk) {
    __m512 found[2][2] = {{_mm512_setzero_ps(), _mm512_setzero_ps()},
                          {_mm512_setzero_ps(), _mm512_setzero_ps()}};
#pragma unroll
    for (int r = 0; r < count; r++)
        weigh_row(chunk, row + r, sums + r * row_stride, slab_stride, found[r]);
    uint32_t *out = packed_at(chunk->job, &chunk->weights, chunk->candidate, row);
    if (per_chunk == GROUPS_OF_2) {
        _mm512_storeu_si512(out, pack_words(found[0][0], found[1][0]));
        _mm512_storeu_si512(out + LANES, pack_words(found[0][1], found[1][1]));
    } else {
        __m512i words = pack_words(sums_of_groups(found[0][0], found[0][1]),
                                   sums_of_groups(found[1][0], found[1][1]));
        _mm_storeu_si128((__m128i *)out, _mm512_castsi512_si128(words));
    }
}

// Weights of one chunk for `tile` rows from `row` on, which is even. `tile` and, for common models,
// dim and per_chunk are constants where this is called, so that everything stays in registers.
// Without `unpacked` the codes are unpacked on the way.
static inline __attribute__((always_inline)) void score_rows(const Chunk *chunk,
                                                             const __m512i *unpacked, int row,
                                                             int tile, int dim, int per_chunk) {
    const int8_t *queries = chunk->int8_queries + (size_t)row * dim;
    const int32_t *offsets = chunk->offsets + row;
    __m512i sums[MAX_ROW_TILE][SLABS];
    if (unpacked)
        unpacked_products(unpacked, queries, offsets, dim, tile, sums);
    else
        packed_products(chunk->codes, queries, offsets, dim, per_chunk, tile, sums);
#pragma unroll
    for (int r = 0; r < tile; r += 2)
        weigh_rows(chunk, row + r, tile - r < 2 ? 1 : 2, sums[r], 1, SLABS, per_chunk);
}

static inline __attribute__((always_inline)) Chunk chunk_at(const SelectJob *job, Weights weights,
                                                            RunningSum *running, int pair,
                                                            int first, int candidate, int dim,
                                                            int per_chunk) {
    size_t rows = (size_t)pair * job->rows;
    Chunk chunk = {.job = job, .weights = weights, .running = running, .first = first,
                   .candidate = candidate,
                   .centre_scores = job->centre_scores + rows * job->span + candidate,
                   .steps = job->steps + rows, .offsets = job->offsets + rows,
                   .int8_queries = job->int8_queries + (size_t)pair * padded_rows(job) * dim,
                   .codes = codes_of(job, pair, candidate, dim)};
    const uint16_t *scales = job->scales + entry_of(job, pair, candidate) * CHUNK;
    for (int line = 0; line < CHUNK; line += 32)
        _mm_prefetch((const char *)(scales + AHEAD * CHUNK + line), _MM_HINT_T1);
    for (int g = 0; g < SLABS; g += 2) {
        __m512i one = _mm512_castps_si512(load_bf16(scales + SLAB * g));
        __m512i other = _mm512_castps_si512(load_bf16(scales + SLAB * (g + 1)));
        split_halves(&one, &other, per_chunk);
        chunk.scales[g] = _mm512_castsi512_ps(one);
        chunk.scales[g + 1] = _mm512_castsi512_ps(other);
    }
    return chunk;
}

static inline void prefetch_codes(const uint8_t *codes, int dim) {
    const char *later = (const char *)codes + AHEAD * CHUNK * (dim / 4);
    for (int line = 0; line < CHUNK * (dim / 4); line += 64)
        _mm_prefetch(later + line, _MM_HINT_T1);
}

// Unpacks twice the codes of a chunk, minus `centre`, to a byte each: [SLABS][dim / 4] vectors.
static inline __attribute__((always_inline)) void unpack_chunk(
    const uint8_t *codes, int centre, int dim, int per_chunk, __m512i *unpacked) {
    prefetch_codes(codes, dim);
    for (int m = 0; m < dim / 16; m++) {
        __m512i entries[SLABS];
        load_entries(codes, m, dim, per_chunk, entries);
#pragma unroll
        for (int i = 0; i < 4; i++)
            for (int g = 0; g < SLABS; g++)
                unpacked[g * (dim / 4) + 4 * m + i] =
                    _mm512_sub_epi8(unpack(entries[g], i), _mm512_set1_epi8((char)centre));
    }
}

static inline __attribute__((always_inline)) void score_chunk(
    const SelectJob *job, Weights weights, int pair, int first, int candidate, RunningSum *running,
    int dim, int per_chunk) {
    Chunk chunk = chunk_at(job, weights, running, pair, first, candidate, dim, per_chunk);
    int row = 0;
    if (job->rows <= MAX_ROW_TILE) {  // those of a decoded token: unpacking twice is no loss
        prefetch_codes(chunk.codes, dim);
        for (; row + 4 <= job->rows; row += 4) score_rows(&chunk, NULL, row, 4, dim, per_chunk);
        switch (job->rows - row) {
            case 3: score_rows(&chunk, NULL, row, 3, dim, per_chunk); break;
            case 2: score_rows(&chunk, NULL, row, 2, dim, per_chunk); break;
            case 1: score_rows(&chunk, NULL, row, 1, dim, per_chunk); break;
        }
        return;
    }
    __m512i unpacked[SLABS * MAX_DIM / 4];
    unpack_chunk(chunk.codes, 0, dim, per_chunk, unpacked);
    for (; row + 8 <= job->rows; row += 8) score_rows(&chunk, unpacked, row, 8, dim, per_chunk);
    for (; row + 2 <= job->rows; row += 2) score_rows(&chunk, unpacked, row, 2, dim, per_chunk);
    if (row < job->rows) score_rows(&chunk, unpacked, row, 1, dim, per_chunk);
}

#ifdef HGA_AMX
// Products of AMX_ROWS rows with the tokens of one chunk: [SLABS][AMX_ROWS][SLAB].
static inline __attribute__((always_inline)) void amx_products(const __m512i *unpacked,
                                                               const int8_t *queries, int dim,
                                                               int32_t *products) {
    clear_sums();
    for (int part = 0; part < dim / 64; part++) {
        const __m512i *tokens = unpacked + 16 * part;
        _tile_loadd(4, queries + 64 * part, dim);
        _tile_loadd(5, tokens, 64);
        _tile_loadd(6, tokens + dim / 4, 64);
        _tile_dpbssd(0, 4, 5);
        _tile_loadd(7, tokens + 2 * (dim / 4), 64);
        _tile_dpbssd(1, 4, 6);
        _tile_loadd(5, tokens + 3 * (dim / 4), 64);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(3, 4, 5);
    }
    store_sums(products, sizeof *products * AMX_ROWS * SLAB, 64);
}

// Weights of a part of the candidates. AMX multiplies the next rows while the current ones are
// weighed. It loads what was stored a chunk earlier, because it waits for pending stores.
static inline __attribute__((always_inline)) void score_by_amx(
    const SelectJob *job, Weights weights, int pair, Part part, RunningSum *running, int dim,
    int per_chunk) {
    __m512i unpacked[2][SLABS * MAX_AMX_DIM / 4];
    _Alignas(64) int32_t products[2][AMX_ROWS * CHUNK];
    int tiles = padded_rows(job) / AMX_ROWS, buffer = 0;
    const int8_t *queries = job->int8_queries + (size_t)pair * tiles * AMX_ROWS * dim;
    if (part.first == part.last) return;
    configure_amx();
    for (int c = part.first; c < part.first + 2 && c < part.last; c++)
        unpack_chunk(codes_of(job, pair, c, dim), 3, dim, per_chunk, unpacked[c & 1]);
    amx_products(unpacked[part.first & 1], queries, dim, products[0]);
    for (int c = part.first; c < part.last; c++) {
        Chunk chunk = chunk_at(job, weights, running, pair, part.first, c, dim, per_chunk);
        for (int tile = 0; tile < tiles; tile++, buffer ^= 1) {
            int next = (tile + 1) % tiles, next_candidate = next ? c : c + 1;
            if (next_candidate < part.last)
                amx_products(unpacked[next_candidate & 1],
                             queries + (size_t)next * AMX_ROWS * dim, dim, products[buffer ^ 1]);
            const __m512i *sums = (const __m512i *)products[buffer];
            int row = tile * AMX_ROWS, end = row + AMX_ROWS;
            end = end < job->rows ? end : job->rows;
            for (; row + 2 <= end; row += 2, sums += 2)
                weigh_rows(&chunk, row, 2, sums, AMX_ROWS, 1, per_chunk);
            if (row < end) weigh_rows(&chunk, row, 1, sums, AMX_ROWS, 1, per_chunk);
        }
        if (c + 2 < part.last)
            unpack_chunk(codes_of(job, pair, c + 2, dim), 3, dim, per_chunk, unpacked[c & 1]);
    }
    _tile_release();
}
#endif
#else
// Products of a query and the codes of a slab's tokens.
static inline __attribute__((always_inline)) void slab_products(const uint8_t *codes,
                                                                const int8_t *query, int dim,
                                                                int32_t totals[SLAB]) {
#if defined(__AVX2__)
    // Two products of a code and a byte of a query are below 762, so 32 sums of two fit 16 bits.
    __m256i wide[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int from = 0; from < dim / 16; from += 8) {
        int to = from + 8 < dim / 16 ? from + 8 : dim / 16;
        __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int m = from; m < to; m++)
            for (int half = 0; half < 2; half++) {
                __m256i entry = _mm256_loadu_si256((const __m256i *)(codes + 64 * m + 32 * half));
                for (int i = 0; i < 4; i++) {
                    int32_t four;
                    memcpy(&four, query + 16 * m + 4 * i, sizeof four);
                    __m256i unpacked = _mm256_and_si256(_mm256_srli_epi16(entry, 2 * i),
                                                        _mm256_set1_epi8(3));
                    __m256i pairs = _mm256_maddubs_epi16(unpacked, _mm256_set1_epi32(four));
                    sums[half] = _mm256_add_epi16(sums[half], pairs);
                }
            }
        for (int half = 0; half < 2; half++)
            wide[half] = _mm256_add_epi32(
                wide[half], _mm256_madd_epi16(sums[half], _mm256_set1_epi16(1)));
    }
    memcpy(totals, wide, sizeof wide);
#else
    memset(totals, 0, SLAB * sizeof *totals);
    for (int m = 0; m < dim / 16; m++)
        for (int i = 0; i < 4; i++)
            for (int t = 0; t < SLAB; t++)
                for (int j = 0; j < 4; j++)
                    totals[t] +=
                        ((codes[64 * m + 4 * t + j] >> (2 * i)) & 3) * query[16 * m + 4 * i + j];
#endif
}

static inline __attribute__((always_inline)) void score_chunk(
    const SelectJob *job, Weights weights, int pair, int first, int candidate, RunningSum *running,
    int dim, int per_chunk) {
    const uint8_t *codes = codes_of(job, pair, candidate, dim);
    const uint16_t *scales = job->scales + entry_of(job, pair, candidate) * CHUNK;
    for (int row = 0; row < job->rows; row++) {
        size_t of_row = (size_t)pair * job->rows + row;
        const int8_t *query = job->int8_queries + of_row * dim;
        float centre = job->centre_scores[of_row * job->span + candidate];
        float scores[CHUNK], top = -INFINITY;
        for (int slab = 0; slab < SLABS; slab++) {
            int32_t totals[SLAB];
            slab_products(codes + (size_t)slab * SLAB * (dim / 4), query, dim, totals);
            for (int t = 0; t < SLAB; t++) {
                float value = (float)(2 * totals[t] + job->offsets[of_row]) * job->steps[of_row];
                value = value * from_bf16(scales[SLAB * slab + t]) + centre;
                scores[SLAB * slab + t] = value;
                top = value > top ? value : top;
            }
        }
        RunningSum *own = &running[row];
        if (top > own->base + HEADROOM)
            raise_base(job, &weights, own, row, first, candidate, ceilf(top));
        int half = CHUNK / per_chunk / 2;
        float sums[GROUPS_OF_2] = {0};
        for (int t = 0; t < half; t++)
            for (int g = 0; g < per_chunk; g++) {
                float one = scores[2 * half * g + t], other = scores[2 * half * g + half + t];
                sums[g] += exp2_1((one > other ? one : other) - own->base);
            }
        uint32_t *out = packed_at(job, &weights, candidate, row);
        for (int g = 0; g < per_chunk; g++) {
            out[g] = with_weight(row % 2 ? out[g] : 0, row, sums[g]);
            own->lanes[g % LANES] += sums[g];
        }
    }
}
#endif

// The weights of a part, where dim and per_chunk are constants for common models.
static inline __attribute__((always_inline)) void score_chunks_as(
    const SelectJob *job, Weights weights, int pair, Part part, RunningSum *running, int dim,
    int per_chunk) {
#ifdef HGA_AMX
    if (job->has_amx) {
        score_by_amx(job, weights, pair, part, running, dim, per_chunk);
        return;
    }
#endif
    for (int c = part.first; c < part.last; c++)
        score_chunk(job, weights, pair, part.first, c, running, dim, per_chunk);
}

static void score_chunks(SelectJob *job, Weights weights, int pair, Part part) {
    int rows = job->rows;
    RunningSum *running = aligned_alloc(64, rows * sizeof *running);
    if (!running) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < rows; row++) running[row] = (RunningSum){.base = -INFINITY};
    if (job->dim == 64 && job->per_chunk == GROUPS_OF_2)
        score_chunks_as(job, weights, pair, part, running, 64, GROUPS_OF_2);
    else if (job->dim == 64)
        score_chunks_as(job, weights, pair, part, running, 64, GROUPS_OF_16);
    else if (job->dim == 128 && job->per_chunk == GROUPS_OF_2)
        score_chunks_as(job, weights, pair, part, running, 128, GROUPS_OF_2);
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

// Products of a pair's queries with the summaries of a part, in log2 units.
static void score_centres(SelectJob *job, int pair, Part part) {
    int dim = job->dim, rows = job->rows, c = part.first, last = part.last;
    const float *queries = job->queries + (size_t)pair * rows * dim;
    float *scores = job->centre_scores + (size_t)pair * rows * job->span;
    size_t head = pair / job->blocks;
    const uint16_t *summaries =
        job->summaries + (head * job->capacity_chunks + job->first_chunk) * dim;
#ifdef HGA_AVX512_VNNI
    for (; c + 4 <= last; c += 4) {
        float wide[4 * MAX_DIM];
        for (int d = 0; d < 4 * dim; d += 32)
            _mm_prefetch((const char *)(summaries + (size_t)(c + 4 * AHEAD) * dim + d),
                         _MM_HINT_T1);
        for (int d = 0; d < 4 * dim; d += 16)
            _mm512_storeu_ps(wide + d, load_bf16(summaries + (size_t)c * dim + d));
        for (int row = 0; row < rows; row++) {
            __m512 sums[4];
            for (int i = 0; i < 4; i++) sums[i] = _mm512_setzero_ps();
            for (int d = 0; d < dim; d += 16) {
                __m512 query = _mm512_loadu_ps(queries + (size_t)row * dim + d);
                for (int i = 0; i < 4; i++)
                    sums[i] = _mm512_fmadd_ps(query, _mm512_loadu_ps(wide + i * dim + d), sums[i]);
            }
            _mm_storeu_ps(scores + (size_t)row * job->span + c,
                          _mm_mul_ps(four_sums(sums[0], sums[1], sums[2], sums[3]),
                                     _mm_set1_ps(LOG2_E)));
        }
    }
#endif
    for (; c < last; c++) {
        float wide[MAX_DIM];
        for (int d = 0; d < dim; d++) wide[d] = from_bf16(summaries[(size_t)c * dim + d]);
        for (int row = 0; row < rows; row++)
            scores[(size_t)row * job->span + c] =
                dot_float(queries + (size_t)row * dim, wide, dim) * LOG2_E;
    }
}

void score_part(SelectJob *job, Weights weights, int pair, Part part) {
    score_centres(job, pair, part);
    score_chunks(job, weights, pair, part);
}

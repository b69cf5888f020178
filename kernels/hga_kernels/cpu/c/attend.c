// Exact attention of blocks of query rows over lists of K/V pages.
//
// The softmax is online, over tiles of 64 tokens. Each tile's pages are packed once for all query
// rows of the block, into the layout of the bf16 dot product: pairs of dimensions for K, pairs of
// tokens for V.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "exp2.h"
#include "kernels.h"
#include "parallel.h"
#include "amx.h"

enum { GROUP = 2, TILE = 64, TILE_PAGES = TILE / GROUP, ROW_TILE = 4, VECTORS = TILE / LANES };
// With fewer pairs of block and head, each is split into parts of at least PART_PAGES pages.
enum { FEW_PAIRS = 16, PART_PAGES = 256 };

// Bytes of the keys and values of a page.
#define PAGE_BYTES(dim) ((size_t)2 * GROUP * (dim) * sizeof(uint16_t))

static const float LN_2 = 0.69314718f;

typedef struct {
    const uint16_t *queries;   // [blocks, rows, kv_heads * heads_per_kv, dim] bf16
    const int32_t *positions;  // [blocks, rows]
    const int32_t *groups;     // [blocks, kv_heads, pages], -1: none
    const int32_t *slots;      // [blocks, kv_heads, pages]
    const uint16_t *pool;      // [slots, 2, GROUP, dim] bf16
    const float *importance;   // [blocks, kv_heads, pages]: how many pages each counts as, or NULL
    uint16_t *out;             // [blocks, rows, kv_heads * heads_per_kv, dim] bf16, or NULL
    float *mass;               // [blocks, kv_heads, pages], or NULL
    float *attention_lse;      // like out without its last dimension, in place of it
    int blocks, rows, kv_heads, heads_per_kv, pages, dim;
    float scale;  // of the scores, in log2 units
    int parts;    // work items that the pages of a pair of block and head are split into
    struct Scratch *scratch;  // [blocks, kv_heads, parts], if there are several parts
    int has_amx;
    int failed;  // out of memory
} AttendJob;

// State of the attention to the pages of a pair of block and head, or to one part of them.
typedef struct Scratch {
    float *sums;        // [padded rows, dim]
    float *total;       // [padded rows]: the running sum of weights
    float *top;         // [padded rows]: the running maximum
    float *page_sums;   // [padded rows, pages]: sums of weights for the mass, or NULL
    float *page_tops;   // [padded rows, pages]: the maximum that those are relative to
    int32_t *limit;     // [padded rows]: last visible position
    uint16_t *queries;  // [padded rows, dim]
    uint16_t *keys;     // [dim / 2, TILE, 2]
    uint16_t *values;   // [TILE / 2, dim, 2]
    uint16_t *weights;  // [AMX_ROWS, TILE]
    int first, pages;   // the part of the list of pages
} Scratch;

// Pages that are attended to together. Tokens after the last page have the position INT32_MAX,
// which no row sees.
typedef struct {
    const uint16_t *pages[TILE_PAGES];
    int indices[TILE_PAGES];  // in the part of the list
    int32_t positions[TILE];
    float importance[TILE];
    int count;
    int masked;  // whether some row does not see all of its tokens
} Tile;

#ifdef HGA_AVX512_BF16
// Transposes 16 x 16 pairs: row i of `rows`, from `first` on, becomes column i of `out`.
static inline void transpose_pairs(const uint32_t *const *rows, int first, uint32_t *out,
                                   size_t out_stride) {
    __m512i two[16], four[16];
    for (int i = 0; i < 16; i += 2) {
        __m512i even = _mm512_loadu_si512(rows[i] + first);
        __m512i odd = _mm512_loadu_si512(rows[i + 1] + first);
        two[i] = _mm512_unpacklo_epi32(even, odd);
        two[i + 1] = _mm512_unpackhi_epi32(even, odd);
    }
    for (int i = 0; i < 16; i += 4) {
        four[i] = _mm512_unpacklo_epi64(two[i], two[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(two[i], two[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(two[i + 1], two[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(two[i + 1], two[i + 3]);
    }
    // Lane L of four[4k + j] holds column 4L + j of rows 4k to 4k + 3.
    for (int j = 0; j < 4; j++) {
        __m512i even_low = _mm512_shuffle_i32x4(four[j], four[4 + j], 0x88);
        __m512i even_high = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x88);
        __m512i odd_low = _mm512_shuffle_i32x4(four[j], four[4 + j], 0xdd);
        __m512i odd_high = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xdd);
        uint32_t *column = out + (size_t)j * out_stride;
        _mm512_storeu_si512(column, _mm512_shuffle_i32x4(even_low, even_high, 0x88));
        _mm512_storeu_si512(column + 4 * out_stride, _mm512_shuffle_i32x4(odd_low, odd_high, 0x88));
        _mm512_storeu_si512(column + 8 * out_stride,
                            _mm512_shuffle_i32x4(even_low, even_high, 0xdd));
        _mm512_storeu_si512(column + 12 * out_stride,
                            _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd));
    }
}
#endif

// Prefetches `bytes` bytes of some pages of a tile. Called while another tile is packed, because a
// core waits for only a few cache lines at a time.
static inline void prefetch(const Tile *tile, int first, int end, size_t from, size_t bytes) {
    for (int page = first; page < end && page < tile->count; page++)
        for (size_t line = from; line < from + bytes; line += 64)
            __builtin_prefetch((const char *)tile->pages[page] + line, 0, 1);
}

// Packs keys, 16 tokens at a time. The first page stands in where there is none.
static void pack_keys(const Tile *tile, const Tile *next, uint16_t *keys, int dim) {
    int half = dim / 2;
    for (int first = 0; first < GROUP * tile->count; first += LANES) {
        prefetch(next, first / GROUP, (first + LANES) / GROUP, 0, PAGE_BYTES(dim) / 2);
        const uint32_t *rows[LANES];
        for (int t = 0; t < LANES; t++) {
            int page = (first + t) / GROUP;
            rows[t] = (const uint32_t *)tile->pages[page < tile->count ? page : 0] +
                      (size_t)(t % GROUP) * half;
        }
        uint32_t *packed = (uint32_t *)keys + first;
        int d = 0;
#ifdef HGA_AVX512_BF16
        for (; d + 16 <= half; d += 16) transpose_pairs(rows, d, packed + (size_t)d * TILE, TILE);
#endif
        for (; d < half; d++)
            for (int t = 0; t < LANES; t++) packed[(size_t)d * TILE + t] = rows[t][d];
    }
}

// Packs values. Tokens that were never written may hold anything, even NaN, and are packed as
// zeros.
static void pack_values(const Tile *tile, const Tile *next, uint16_t *values, int dim,
                        int highest) {
    const size_t token_bytes = dim * sizeof(uint16_t);
    for (int t = 0; t < GROUP * tile->count; t += 2) {
        prefetch(next, t / GROUP, t / GROUP + 1, (GROUP + t % GROUP) * token_bytes,
                 2 * token_bytes);
        const uint16_t *even = tile->pages[t / GROUP] + (size_t)(GROUP + t % GROUP) * dim;
        const uint16_t *odd = even + dim;
        uint32_t *row = (uint32_t *)values + (size_t)(t / 2) * dim;
        uint32_t first = tile->positions[t] <= highest ? 0xffff : 0;
        uint32_t second = tile->positions[t + 1] <= highest ? 0xffff : 0;
        for (int d = 0; d < dim; d++) row[d] = (even[d] & first) | ((odd[d] & second) << 16);
    }
    // AMX multiplies whole tiles.
    size_t packed = (size_t)GROUP * tile->count * dim;
    memset(values + packed, 0, ((size_t)TILE * dim - packed) * sizeof *values);
}

#ifdef HGA_AVX512_BF16
// Sums of two neighbouring lanes, the tokens of a page.
static inline __m256 sums_of_pages(__m512 values) {
    values = _mm512_add_ps(values, _mm512_permute_ps(values, 0xb1));
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(even, values));
}

// Softmax weights of one row for one tile, from the products of its query with the keys.
static inline __attribute__((always_inline)) void weigh_row(
    const AttendJob *job, Scratch *scratch, const Tile *tile, int row, __m512 scores[VECTORS],
    uint16_t *weights, int dim) {
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    size_t of_row = (size_t)row * scratch->pages;
    __m512 most = nothing;
    for (int p = 0; p < VECTORS; p++) {
        scores[p] = _mm512_mul_ps(scores[p], _mm512_set1_ps(job->scale));
        if (tile->masked) {
            __mmask16 hidden =
                _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(tile->positions + LANES * p),
                                        _mm512_set1_epi32(scratch->limit[row]));
            scores[p] = _mm512_mask_blend_ps(hidden, scores[p], nothing);
        }
        most = _mm512_max_ps(most, scores[p]);
    }
    float *top = &scratch->top[row], *total = &scratch->total[row];
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(*top), _CMP_GT_OQ)) {
        float above = _mm512_reduce_max_ps(most);
        float shrink = exp2_1(*top - above);
        *top = above;
        *total *= shrink;
        float *sums = scratch->sums + (size_t)row * dim;
        for (int d = 0; d < dim; d += 16)
            _mm512_storeu_ps(sums + d,
                             _mm512_mul_ps(_mm512_loadu_ps(sums + d), _mm512_set1_ps(shrink)));
    }
    if (*top == -INFINITY) {  // nothing visible yet
        memset(weights, 0, TILE * sizeof *weights);
        for (int p = 0; scratch->page_sums && p < tile->count; p++) {
            scratch->page_sums[of_row + tile->indices[p]] = 0;
            scratch->page_tops[of_row + tile->indices[p]] = 0;
        }
        return;
    }
    __m512 base = _mm512_set1_ps(*top), sum = _mm512_setzero_ps();
    for (int p = 0; p < VECTORS; p++) scores[p] = exp2_512(_mm512_sub_ps(scores[p], base));
    if (scratch->page_sums) {
        float sums[TILE_PAGES];
        for (int p = 0; p < VECTORS; p++)
            _mm256_storeu_ps(sums + LANES / GROUP * p, sums_of_pages(scores[p]));
        for (int p = 0; p < tile->count; p++) {
            scratch->page_sums[of_row + tile->indices[p]] = sums[p];
            scratch->page_tops[of_row + tile->indices[p]] = *top;
        }
    }
    for (int p = 0; p < VECTORS; p++) {
        if (job->importance)
            scores[p] = _mm512_mul_ps(scores[p], _mm512_loadu_ps(tile->importance + LANES * p));
        sum = _mm512_add_ps(sum, scores[p]);
    }
    for (int p = 0; p < VECTORS; p += 2)
        _mm512_storeu_si512(weights + LANES * p,
                            (__m512i)_mm512_cvtne2ps_pbh(scores[p + 1], scores[p]));
    *total += _mm512_reduce_add_ps(sum);
}
#endif

#ifdef HGA_AMX
// Adds to the sums the products of AMX_ROWS rows of 32 values with 32 rows of TILE values. Of
// those, the values of two rows lie side by side.
static inline __attribute__((always_inline)) void add_products(const uint16_t *rows,
                                                               size_t row_bytes,
                                                               const uint16_t *others,
                                                               size_t pair_bytes) {
    _tile_loadd(4, rows, row_bytes);
    _tile_loadd(5, others, pair_bytes);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, others + 2 * LANES, pair_bytes);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, others + 4 * LANES, pair_bytes);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, others + 6 * LANES, pair_bytes);
    _tile_dpbf16ps(3, 4, 5);
}

// attend_tile for AMX_ROWS rows, by AMX.
static inline __attribute__((always_inline)) void attend_by_amx(
    const AttendJob *job, Scratch *scratch, const Tile *tile, int row, int dim) {
    const uint16_t *queries = scratch->queries + (size_t)row * dim;
    _Alignas(64) float products[AMX_ROWS * TILE];
    clear_sums();
    for (int d = 0; d < dim; d += 32)
        add_products(queries + d, dim * 2, scratch->keys + (size_t)d * TILE, TILE * 4);
    store_sums(products, 4 * LANES, TILE * 4);
    for (int r = 0; r < AMX_ROWS; r++) {
        __m512 scores[VECTORS];
        for (int p = 0; p < VECTORS; p++)
            scores[p] = _mm512_load_ps(products + r * TILE + LANES * p);
        weigh_row(job, scratch, tile, row + r, scores, scratch->weights + r * TILE, dim);
    }
    if (!job->out) return;
    for (int d = 0; d < dim; d += 64) {
        float *sums = scratch->sums + (size_t)row * dim + d;
        _tile_loadd(0, sums, dim * 4);
        _tile_loadd(1, sums + LANES, dim * 4);
        _tile_loadd(2, sums + 2 * LANES, dim * 4);
        _tile_loadd(3, sums + 3 * LANES, dim * 4);
        for (int t = 0; t < TILE; t += 32)
            add_products(scratch->weights + t, TILE * 2,
                         scratch->values + (size_t)t * dim + 2 * d, dim * 4);
        store_sums(sums, 4 * LANES, dim * 4);
    }
}
#endif

// Scores, softmax weights and weighted values of one tile for ROW_TILE rows from `row` on.
static inline __attribute__((always_inline)) void attend_tile(
    const AttendJob *job, Scratch *scratch, const Tile *tile, int row, int dim) {
    const uint16_t *queries = scratch->queries + (size_t)row * dim;
#ifdef HGA_AVX512_BF16
    __m512 scores[ROW_TILE][VECTORS];
    for (int r = 0; r < ROW_TILE; r++)
        for (int p = 0; p < VECTORS; p++) scores[r][p] = _mm512_setzero_ps();
    for (int d = 0; d < dim / 2; d++) {
        __m512bh keys[VECTORS];
        for (int p = 0; p < VECTORS; p++)
            keys[p] =
                (__m512bh)_mm512_loadu_si512(scratch->keys + ((size_t)d * TILE + LANES * p) * 2);
        for (int r = 0; r < ROW_TILE; r++) {
            int32_t pair;
            memcpy(&pair, queries + (size_t)r * dim + 2 * d, 4);
            __m512bh query = (__m512bh)_mm512_set1_epi32(pair);
            for (int p = 0; p < VECTORS; p++)
                scores[r][p] = _mm512_dpbf16_ps(scores[r][p], keys[p], query);
        }
    }
    for (int r = 0; r < ROW_TILE; r++)
        weigh_row(job, scratch, tile, row + r, scores[r], scratch->weights + r * TILE, dim);
    if (!job->out) return;
    for (int start = 0; start < dim; start += 64) {
        int vectors = dim - start < 64 ? (dim - start) / 16 : 4;
        __m512 sums[ROW_TILE][4];
        for (int r = 0; r < ROW_TILE; r++)
            for (int v = 0; v < 4; v++)
                if (v < vectors)
                    sums[r][v] = _mm512_loadu_ps(scratch->sums + (size_t)(row + r) * dim + start +
                                                 16 * v);
        for (int pair = 0; pair < GROUP / 2 * tile->count; pair++) {
            __m512bh values[4];
            for (int v = 0; v < 4; v++)
                if (v < vectors)
                    values[v] = (__m512bh)_mm512_loadu_si512(
                        scratch->values + ((size_t)pair * dim + start + 16 * v) * 2);
            for (int r = 0; r < ROW_TILE; r++) {
                int32_t two;
                memcpy(&two, scratch->weights + r * TILE + 2 * pair, 4);
                __m512bh weight = (__m512bh)_mm512_set1_epi32(two);
                for (int v = 0; v < 4; v++)
                    if (v < vectors) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], values[v], weight);
            }
        }
        for (int r = 0; r < ROW_TILE; r++)
            for (int v = 0; v < 4; v++)
                if (v < vectors)
                    _mm512_storeu_ps(scratch->sums + (size_t)(row + r) * dim + start + 16 * v,
                                     sums[r][v]);
    }
#else
    size_t stride = scratch->pages;
    float *page_sums = scratch->page_sums ? scratch->page_sums + row * stride : NULL;
    float *page_tops = scratch->page_tops ? scratch->page_tops + row * stride : NULL;
    for (int r = 0; r < ROW_TILE; r++) {
        float scores[TILE] = {0};
        int tokens = GROUP * tile->count;
        for (int d = 0; d < dim / 2; d++) {
            float first = from_bf16(queries[(size_t)r * dim + 2 * d]);
            float second = from_bf16(queries[(size_t)r * dim + 2 * d + 1]);
            const uint16_t *keys = scratch->keys + (size_t)d * TILE * 2;
            for (int t = 0; t < TILE; t++)
                scores[t] += first * from_bf16(keys[2 * t]) + second * from_bf16(keys[2 * t + 1]);
        }
        float most = -INFINITY;
        for (int t = 0; t < tokens; t++) {
            scores[t] = tile->positions[t] > scratch->limit[row + r] ? -INFINITY
                                                                     : scores[t] * job->scale;
            most = scores[t] > most ? scores[t] : most;
        }
        float *top = &scratch->top[row + r], *total = &scratch->total[row + r];
        float *sums = scratch->sums + (size_t)(row + r) * dim;
        if (most > *top) {
            float shrink = exp2_1(*top - most);
            *top = most;
            *total *= shrink;
            for (int d = 0; d < dim; d++) sums[d] *= shrink;
        }
        for (int p = 0; p < tile->count; p++) {
            float sum = 0;
            for (int t = GROUP * p; t < GROUP * (p + 1); t++) {
                scores[t] = *top == -INFINITY ? 0 : exp2_1(scores[t] - *top);
                sum += scores[t];
                if (job->importance) scores[t] *= tile->importance[t];
            }
            *total += job->importance ? sum * tile->importance[GROUP * p] : sum;
            if (page_sums) {
                page_sums[r * stride + tile->indices[p]] = sum;
                page_tops[r * stride + tile->indices[p]] = *top == -INFINITY ? 0 : *top;
            }
        }
        for (int pair = 0; job->out && pair < tokens / 2; pair++) {
            const uint16_t *values = scratch->values + (size_t)pair * dim * 2;
            float first = scores[2 * pair], second = scores[2 * pair + 1];
            for (int d = 0; d < dim; d++)
                sums[d] += first * from_bf16(values[2 * d]) + second * from_bf16(values[2 * d + 1]);
        }
    }
#endif
}

// Adds one row's weights to the mass of each page, relative to the row's final maximum.
static void add_mass(float *mass, const float *sums, const float *tops, float top, float share,
                     int pages) {
    for (int page = 0; page < pages; page++) {
        float under = tops[page] - top;
        under = under < -126.0f ? -126.0f : under;
        under = under > 0.0f ? 0.0f : under;
        mass[page] += sums[page] * share * exp2_finite(under);
    }
}

static int allocate(Scratch *scratch, int rows, int dim, int first, int pages, int with_mass) {
    size_t of_rows = (size_t)rows * dim, of_pages = with_mass ? (size_t)rows * pages : 0;
    float *sums = calloc(of_rows + 3 * rows + 2 * of_pages, sizeof(float));
    uint16_t *queries = malloc((of_rows + 2 * TILE * dim + AMX_ROWS * TILE) * sizeof(uint16_t));
    float *total = sums + of_rows, *top = total + rows, *page_sums = top + rows;
    uint16_t *keys = queries + of_rows, *values = keys + TILE * dim;
    *scratch = (Scratch){.sums = sums, .total = total, .top = top,
                         .page_sums = with_mass ? page_sums : NULL,
                         .page_tops = with_mass ? page_sums + of_pages : NULL,
                         .limit = (int32_t *)(page_sums + 2 * of_pages),
                         .queries = queries, .keys = keys, .values = values,
                         .weights = values + TILE * dim, .first = first, .pages = pages};
    return sums && queries;
}

static void release(Scratch *scratch) {
    free(scratch->sums);
    free(scratch->queries);
}

static int rows_of(const AttendJob *job) { return job->rows * job->heads_per_kv; }

static int padded_rows_of(const AttendJob *job) {
    return (rows_of(job) + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
}

// The index of a pair's row among all query rows.
static size_t query_row(const AttendJob *job, int pair, int row) {
    int block = pair / job->kv_heads, head = pair % job->kv_heads;
    size_t query = (size_t)block * job->rows + row / job->heads_per_kv;
    return (query * job->kv_heads + head) * job->heads_per_kv + row % job->heads_per_kv;
}

// Fills a tile with pages of the list from `index` on, without those that no row sees. Returns the
// index of the first page that is left.
static int fill_tile(const AttendJob *job, const Scratch *scratch, Tile *tile, int pair, int index,
                     int lowest, int highest) {
    const int32_t *groups = job->groups + (size_t)pair * job->pages;
    const int32_t *slots = job->slots + (size_t)pair * job->pages;
    const float *importance = job->importance ? job->importance + (size_t)pair * job->pages : NULL;
    tile->count = tile->masked = 0;
    for (; index < scratch->first + scratch->pages && tile->count < TILE_PAGES; index++) {
        if (groups[index] < 0 || groups[index] * GROUP > highest) continue;
        tile->masked |= groups[index] * GROUP + GROUP - 1 > lowest;
        for (int t = GROUP * tile->count; t < GROUP * (tile->count + 1); t++) {
            tile->positions[t] = groups[index] * GROUP + t % GROUP;
            if (importance) tile->importance[t] = importance[index];
        }
        tile->pages[tile->count] = job->pool + (size_t)slots[index] * 2 * GROUP * job->dim;
        tile->indices[tile->count++] = index - scratch->first;
    }
    tile->masked |= tile->count < TILE_PAGES;
    for (int t = GROUP * tile->count; t < TILE; t++) {
        tile->positions[t] = INT32_MAX;
        tile->importance[t] = 0;
    }
    return index;
}

// Attends from the rows of a pair to one part of its pages.
static void attend_part(AttendJob *job, Scratch *scratch, int pair, int part) {
    int dim = job->dim, rows = rows_of(job), padded = padded_rows_of(job);
    int first = (int)((int64_t)job->pages * part / job->parts);
    int end = (int)((int64_t)job->pages * (part + 1) / job->parts);
    if (!allocate(scratch, padded, dim, first, end - first, job->mass != NULL)) {
        job->failed = 1;
        return;
    }
    int32_t lowest = INT32_MAX, highest = -1;
    for (int row = 0; row < padded; row++) {
        int own = row < rows ? row : 0;
        memcpy(scratch->queries + (size_t)row * dim, job->queries + query_row(job, pair, own) * dim,
               (size_t)dim * 2);
        scratch->limit[row] =
            job->positions[pair / job->kv_heads * job->rows + own / job->heads_per_kv];
        scratch->top[row] = -INFINITY;
        if (scratch->limit[row] < lowest) lowest = scratch->limit[row];
        if (scratch->limit[row] > highest) highest = scratch->limit[row];
    }
    Tile tiles[2], *tile = tiles, *next = tiles + 1;
    int index = fill_tile(job, scratch, tile, pair, first, lowest, highest);
    prefetch(tile, 0, TILE_PAGES, 0, job->out ? PAGE_BYTES(dim) : PAGE_BYTES(dim) / 2);
#ifdef HGA_AMX
    if (job->has_amx) configure_amx();
#endif
    while (tile->count) {
        index = fill_tile(job, scratch, next, pair, index, lowest, highest);
        pack_keys(tile, next, scratch->keys, dim);
        if (job->out) pack_values(tile, next, scratch->values, dim, highest);
        int row = 0;
#ifdef HGA_AMX
        for (; job->has_amx && row + AMX_ROWS <= padded; row += AMX_ROWS) {
            if (dim == 64)
                attend_by_amx(job, scratch, tile, row, 64);
            else
                attend_by_amx(job, scratch, tile, row, dim);
        }
#endif
        for (; row < padded; row += ROW_TILE) {
            if (dim == 64)
                attend_tile(job, scratch, tile, row, 64);
            else if (dim == 128)
                attend_tile(job, scratch, tile, row, 128);
            else
                attend_tile(job, scratch, tile, row, dim);
        }
        Tile *done = tile;
        tile = next;
        next = done;
    }
#ifdef HGA_AMX
    if (job->has_amx) _tile_release();
#endif
}

// Adds the state of another part to the first, without the mass of pages.
static void add_part(const AttendJob *job, Scratch *to, const Scratch *from) {
    int dim = job->dim;
    for (int row = 0; row < rows_of(job); row++) {
        float top = from->top[row] > to->top[row] ? from->top[row] : to->top[row];
        if (top == -INFINITY) continue;
        float own = exp2_1(to->top[row] - top), other = exp2_1(from->top[row] - top);
        to->top[row] = top;
        to->total[row] = to->total[row] * own + from->total[row] * other;
        float *sums = to->sums + (size_t)row * dim;
        for (int d = 0; d < dim; d++)
            sums[d] = sums[d] * own + from->sums[(size_t)row * dim + d] * other;
    }
}

// Merges the parts of a pair and writes the results.
static void write_pair(const AttendJob *job, Scratch *parts, int pair) {
    int dim = job->dim;
    for (int part = 1; part < job->parts; part++) add_part(job, parts, parts + part);
    float *mass = job->mass ? job->mass + (size_t)pair * job->pages : NULL;
    if (mass) memset(mass, 0, sizeof(float) * job->pages);
    for (int row = 0; row < rows_of(job); row++) {
        size_t to = query_row(job, pair, row);
        float top = parts->top[row], total = parts->total[row];
        if (!job->out) {
            job->attention_lse[to] = (top + log2f(total)) * LN_2;
            continue;
        }
        float share = total > 0 ? 1.0f / total : 0.0f;
        for (int d = 0; d < dim; d++)
            job->out[to * dim + d] = to_bf16(parts->sums[(size_t)row * dim + d] * share);
        for (const Scratch *part = parts; mass && part < parts + job->parts; part++)
            add_mass(mass + part->first, part->page_sums + (size_t)row * part->pages,
                     part->page_tops + (size_t)row * part->pages, top, share, part->pages);
    }
}

static void attend_part_item(void *context, int item) {
    AttendJob *job = context;
    attend_part(job, &job->scratch[item], item / job->parts, item % job->parts);
}

static void merge_item(void *context, int pair) {
    AttendJob *job = context;
    write_pair(job, job->scratch + (size_t)pair * job->parts, pair);
}

static void attend_pair_item(void *context, int pair) {
    AttendJob *job = context;
    Scratch scratch;
    attend_part(job, &scratch, pair, 0);
    if (!job->failed) write_pair(job, &scratch, pair);
    release(&scratch);
}

int hga_attend_pages(const uint16_t *queries, const int32_t *positions, const int32_t *groups,
                     const int32_t *slots, const uint16_t *pool, const float *importance,
                     uint16_t *out, float *mass, float *attention_lse, int blocks, int rows,
                     int kv_heads, int heads_per_kv, int pages, int dim, float scale) {
    int pairs = blocks * kv_heads;
    AttendJob job = {queries, positions, groups, slots, pool, importance, out, mass, attention_lse,
                     blocks, rows, kv_heads, heads_per_kv, pages, dim, scale, 1, NULL, 0, 0};
    job.has_amx = rows * heads_per_kv >= AMX_ROWS && dim % 64 == 0 && allow_amx();
    if (pairs < FEW_PAIRS && pages >= 2 * PART_PAGES) job.parts = pages / PART_PAGES;
    if (job.parts == 1) {
        parallel_for(attend_pair_item, &job, pairs);
        return job.failed;
    }
    int items = pairs * job.parts;
    job.scratch = calloc(items, sizeof(Scratch));
    if (!job.scratch) return 1;
    parallel_for(attend_part_item, &job, items);
    if (!job.failed) parallel_for(merge_item, &job, pairs);
    for (int item = 0; item < items; item++) release(&job.scratch[item]);
    free(job.scratch);
    return job.failed;
}

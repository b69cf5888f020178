// out = inputs @ weight.T for packed weights and many rows, in the integers of integers.h.
//
// Vectors hold 16 rows of inputs; weights are unpacked next to their use, and broadcast.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "exp2.h"
#include "integers.h"
#include "parallel.h"

enum {
    OUTPUTS_PER_ITEM = 48,  // a multiple of OUTPUTS and of ROWS
    GROUPS_PER_ITEM = 64,   // at most: groups of rows
};

#if defined(HGA_AVX512_VNNI)
enum { OUTPUTS = 12, GROUPS = 2 };  // of a block of products in registers
#elif defined(__AVX2__)
enum { OUTPUTS = 6, GROUPS = 1 };
#else
enum { OUTPUTS = 4, GROUPS = 1 };
#endif

// --- Inputs --------------------------------------------------------------------------------------

typedef struct {
    const float *inputs;   // [rows, columns], or [rows, 2 * columns] of gates and ups
    const float *norm;     // [columns], or NULL: inputs are taken as they are
    const int32_t *order;  // [groups * 16] rows of `inputs`, negative for none; NULL: as they come
    int16_t *values;       // [tiles, groups, pairs of columns, 16, 2]: fewer pairs in the last tile
    float *scales;         // [tiles, groups, 16]
    int rows, groups, columns, is_gated;
    float eps;
} QuantizeJob;

static void quantize_group(void *context, int group) {
    const QuantizeJob *job = context;
    const float *in[ROWS];
    float factors[ROWS];
    size_t stride = (size_t)job->columns * (job->is_gated ? 2 : 1);
    for (int i = 0; i < ROWS; i++) {
        int row = group * ROWS + i;
        if (job->order)
            row = job->order[row];
        else if (row >= job->rows)
            row = -1;
        in[i] = row < 0 ? NULL : job->inputs + row * stride;
        if (job->norm && in[i]) {
            float sums[LANES] = {0}, sum = 0;
            int column = 0;
            for (; column + LANES <= job->columns; column += LANES)
                for (int j = 0; j < LANES; j++) sums[j] += in[i][column + j] * in[i][column + j];
            for (; column < job->columns; column++) sum += in[i][column] * in[i][column];
            for (int j = 0; j < LANES; j++) sum += sums[j];
            factors[i] = 1.0f / sqrtf(sum / (float)job->columns + job->eps);
        }
    }
    for (int tile = 0; tile < tiles_of(job->columns); tile++) {
        int first = tile * TILE, size = least(job->columns - first, TILE), wide = padded(size);
        float *scales = job->scales + ((size_t)tile * job->groups + group) * ROWS;
        int16_t *values = job->values + (size_t)tile * job->groups * TILE * ROWS;
        _Alignas(64) int16_t integers[ROWS][TILE];
        for (int i = 0; i < ROWS; i++) {
            _Alignas(64) float numbers[TILE];
            if (!in[i]) {
                memset(integers[i], 0, sizeof integers[i]);
                scales[i] = 0;
                continue;
            }
            const float *from = in[i] + first;
            for (int j = 0; j < TILE; j += 16) __builtin_prefetch(from + TILE + j, 0, 3);
            if (size < wide) memset(numbers + size, 0, (wide - size) * sizeof(float));
            if (job->is_gated) {
                const float *up = from + job->columns;
                for (int j = 0; j < size; j++)
                    numbers[j] = from[j] / (1.0f + exp_finite(-from[j])) * up[j];
            } else if (job->norm) {
                for (int j = 0; j < size; j++)
                    numbers[j] = from[j] * factors[i] * job->norm[first + j];
            } else if (size < wide) {
                memcpy(numbers, from, size * sizeof(float));
            }
            const float *taken = job->is_gated || job->norm || size < wide ? numbers : from;
            scales[i] = quantize(taken, wide, integers[i]);
        }
        transpose_rows((const uint32_t *)integers, PAIRS, wide / 2,
                       (uint32_t *)(values + (size_t)group * wide * ROWS));
    }
}

int hga_quantize_rows(const float *inputs, const float *norm, const int32_t *order, int16_t *values,
                      float *scales, int rows, int groups, int columns, int is_gated, float eps) {
    QuantizeJob job = {inputs, norm, order, values, scales, rows, groups, columns, is_gated, eps};
    parallel_for(quantize_group, &job, groups);
    return 0;
}

// --- Products ------------------------------------------------------------------------------------

// A weight and the groups of rows that it multiplies.
typedef struct {
    const uint8_t *weight;  // [outputs, bytes of a row]
    const uint8_t *up;      // [outputs, bytes of a row]: the result is silu(weight) * up; or NULL
    int32_t type, up_type;  // numbers of the formats in GGUF files
    int32_t outputs;
    int32_t column;  // of the first output in the result
    int32_t first_group, groups;
    int32_t first_item;
} Product;

typedef struct {
    const int16_t *values;  // of the inputs, quantised as above
    const float *scales;
    const float *residual;  // [rows, size_out], or NULL
    float *out;             // [rows, size_out]
    const int32_t *targets;  // rows of `out` that products are added to, negative for none; or NULL
    const float *shares;     // what a row's products are multiplied by before
    const Product *products;
    int number, rows, groups, columns, size_out;  // number of products, rows and groups of all
    int groups_per_item;
} ProductJob;

// sums[group][output][row] += the products of a tile. Prefetches half a tile of a group from `next`.
INLINE void multiply(const int16_t *inputs, int groups, int pairs, const int16_t *weights,
                     const float *input_scales, const float *weight_scales, float *sums,
                     const int16_t *next) {
#if defined(HGA_AVX512_VNNI)
    __m512i products[GROUPS][OUTPUTS];
    for (int group = 0; group < groups; group++)
        for (int i = 0; i < OUTPUTS; i++) products[group][i] = _mm512_setzero_si512();
    for (int pair = 0; pair < pairs; pair++) {
        if (pair % 2 == 0) __builtin_prefetch(next + pair * ROWS, 0, 3);
        __m512i in[GROUPS];
        for (int group = 0; group < groups; group++)
            in[group] = _mm512_loadu_si512(inputs + (group * pairs + pair) * 2 * ROWS);
        for (int i = 0; i < OUTPUTS; i++) {
            int32_t two;
            memcpy(&two, weights + i * TILE + 2 * pair, sizeof two);
            __m512i weight = _mm512_set1_epi32(two);
            for (int group = 0; group < groups; group++)
                products[group][i] = _mm512_dpwssd_epi32(products[group][i], in[group], weight);
        }
    }
    for (int group = 0; group < groups; group++) {
        __m512 scale = _mm512_loadu_ps(input_scales + group * ROWS);
        float *to = sums + group * OUTPUTS_PER_ITEM * ROWS;
        for (int i = 0; i < OUTPUTS; i++, to += ROWS) {
            __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(weight_scales[i]));
            __m512 product = _mm512_cvtepi32_ps(products[group][i]);
            _mm512_store_ps(to, _mm512_fmadd_ps(product, factor, _mm512_load_ps(to)));
        }
    }
#elif defined(__AVX2__)
    (void)groups;
    __m256i products[OUTPUTS][2];
    for (int i = 0; i < OUTPUTS; i++)
        for (int half = 0; half < 2; half++) products[i][half] = _mm256_setzero_si256();
    for (int pair = 0; pair < pairs; pair++) {
        if (pair % 2 == 0) __builtin_prefetch(next + pair * ROWS, 0, 3);
        const __m256i *in = (const __m256i *)(inputs + pair * 2 * ROWS);
        for (int i = 0; i < OUTPUTS; i++) {
            int32_t two;
            memcpy(&two, weights + i * TILE + 2 * pair, sizeof two);
            __m256i weight = _mm256_set1_epi32(two);
            for (int half = 0; half < 2; half++) {
#if defined(__AVXVNNI__)
                products[i][half] = _mm256_dpwssd_avx_epi32(products[i][half], _mm256_loadu_si256(in + half),
                                                            weight);
#else
                products[i][half] = _mm256_add_epi32(products[i][half],
                                                     _mm256_madd_epi16(_mm256_loadu_si256(in + half), weight));
#endif
            }
        }
    }
    for (int i = 0; i < OUTPUTS; i++)
        for (int half = 0; half < 2; half++) {
            float *to = sums + i * ROWS + 8 * half;
            __m256 factor = _mm256_mul_ps(_mm256_loadu_ps(input_scales + 8 * half),
                                          _mm256_set1_ps(weight_scales[i]));
            __m256 product = _mm256_cvtepi32_ps(products[i][half]);
            _mm256_store_ps(to, _mm256_fmadd_ps(product, factor, _mm256_load_ps(to)));
        }
#else
    (void)groups, (void)next;
    for (int i = 0; i < OUTPUTS; i++) {
        int32_t products[ROWS] = {0};
        for (int pair = 0; pair < pairs; pair++)
            for (int row = 0; row < ROWS; row++)
                products[row] +=
                    inputs[(pair * ROWS + row) * 2] * weights[i * TILE + 2 * pair] +
                    inputs[(pair * ROWS + row) * 2 + 1] * weights[i * TILE + 2 * pair + 1];
        for (int row = 0; row < ROWS; row++)
            sums[i * ROWS + row] += (float)products[row] * input_scales[row] * weight_scales[i];
    }
#endif
}

// Outputs of an item; if they are gated, it has as many sums of ups behind them.
INLINE int outputs_per_item(const Product *product) {
    return product->up ? OUTPUTS_PER_ITEM / 2 : OUTPUTS_PER_ITEM;
}

INLINE int output_items(const Product *product) {
    int outputs = outputs_per_item(product);
    return (product->outputs + outputs - 1) / outputs;
}

// Writes the sums of a group of rows: `outputs` columns of the result.
static void store_group(const ProductJob *job, const float *sums, int first_row, int column,
                        int outputs, int is_gated) {
    int rows = least(job->rows - first_row, ROWS);
    _Alignas(64) float turned[ROWS][OUTPUTS_PER_ITEM];
    for (int i = 0; i < OUTPUTS_PER_ITEM; i += ROWS) {
#if defined(HGA_AVX512_VNNI)
        __m512i block[ROWS];
        for (int j = 0; j < ROWS; j++) block[j] = _mm512_load_si512(sums + (i + j) * ROWS);
        transpose(block);
        for (int j = 0; j < ROWS; j++) _mm512_store_si512(&turned[j][i], block[j]);
#else
        for (int j = 0; j < ROWS; j++)
            for (int row = 0; row < ROWS; row++) turned[row][i + j] = sums[(i + j) * ROWS + row];
#endif
    }
    for (int row = 0; row < rows; row++) {
        size_t index = (size_t)(first_row + row) * job->size_out + column;
        float *values = turned[row], *up = values + OUTPUTS_PER_ITEM / 2;
        if (is_gated)
            for (int i = 0; i < OUTPUTS_PER_ITEM / 2; i++)
                values[i] = values[i] / (1.0f + exp_finite(-values[i])) * up[i];
        if (job->targets) {
            int target = job->targets[first_row + row];
            float *out = job->out + (size_t)target * job->size_out + column;
            float share = job->shares[first_row + row];
            for (int i = 0; i < outputs && target >= 0; i++) out[i] += share * values[i];
            continue;
        }
        if (job->residual)
            for (int i = 0; i < outputs; i++) values[i] += job->residual[index + i];
        memcpy(job->out + index, values, outputs * sizeof(float));
    }
}

// Numbers the items of all products and returns how many there are.
static int count_items(Product *products, int number, int groups_per_item) {
    int items = 0;
    for (int i = 0; i < number; i++) {
        products[i].first_item = items;
        items += output_items(products + i) *
                 ((products[i].groups + groups_per_item - 1) / groups_per_item);
    }
    return items;
}

// Converts a tile of the rows [first, first + count) of a weight.
static void unpack_outputs(const uint8_t *weight, int type, int first, int count, int tile,
                           int columns, int16_t *out, float *scales) {
    size_t bytes = row_bytes(type, columns), tile_bytes = row_bytes(type, TILE);
    for (int i = 0; i < count; i += ROWS) {
        const uint8_t *rows = weight + (first + i) * bytes;
        int together = least(count - i, ROWS);
        // Those of the next tile: rows are too far apart for the CPU to see that they follow.
        for (int j = 0; j < together; j++)
            for (size_t at = 0; at < tile_bytes; at += 64)
                __builtin_prefetch(rows + j * bytes + (tile + 1) * tile_bytes + at, 0, 2);
        unpack_tile(rows, bytes, type, tile, columns, together, out + i * TILE, scales + i);
    }
}

// Computes outputs of one item for some groups of rows.
static void multiply_block(const ProductJob *job, const Product *product, int first_output,
                           int first_group, int groups) {
    int outputs = least(product->outputs - first_output, outputs_per_item(product));
    int sums_of_row = product->up ? OUTPUTS_PER_ITEM : outputs;
    int tiles = tiles_of(job->columns);
    _Alignas(64) int16_t weights[OUTPUTS_PER_ITEM * TILE];
    _Alignas(64) float weight_scales[OUTPUTS_PER_ITEM];
    _Alignas(64) float sums[GROUPS_PER_ITEM][OUTPUTS_PER_ITEM * ROWS];
    memset(sums, 0, groups * sizeof sums[0]);
    memset(weights, 0, sizeof weights);
    memset(weight_scales, 0, sizeof weight_scales);
    for (int tile = 0; tile < tiles; tile++) {
        unpack_outputs(product->weight, product->type, first_output, outputs, tile, job->columns,
                       weights, weight_scales);
        if (product->up)
            unpack_outputs(product->up, product->up_type, first_output, outputs, tile,
                           job->columns, weights + OUTPUTS_PER_ITEM / 2 * TILE,
                           weight_scales + OUTPUTS_PER_ITEM / 2);
        int pairs = padded(least(job->columns - tile * TILE, TILE)) / 2;
        const float *scales = job->scales + ((size_t)tile * job->groups + first_group) * ROWS;
        const int16_t *values = job->values + (size_t)tile * job->groups * TILE * ROWS +
                                (size_t)first_group * pairs * 2 * ROWS;
        for (int group = 0; group < groups;) {
            int together = groups - group >= GROUPS ? GROUPS : 1;
            const int16_t *in = values + (size_t)group * pairs * 2 * ROWS;
            for (int i = 0; i < sums_of_row; i += OUTPUTS) {
                float *to = sums[group] + i * ROWS;
                const int16_t *next = in + (together * 2 + i / OUTPUTS) * pairs * ROWS;
                if (together == GROUPS)
                    multiply(in, GROUPS, pairs, weights + i * TILE, scales + group * ROWS,
                             weight_scales + i, to, next);
                else
                    multiply(in, 1, pairs, weights + i * TILE, scales + group * ROWS,
                             weight_scales + i, to, next);
            }
            group += together;
        }
    }
    for (int group = 0; group < groups; group++)
        store_group(job, sums[group], (first_group + group) * ROWS, product->column + first_output,
                    outputs, product->up != NULL);
}

static void multiply_item(void *context, int item) {
    const ProductJob *job = context;
    const Product *product = job->products;
    while (product + 1 < job->products + job->number && product[1].first_item <= item) product++;
    item -= product->first_item;
    int first_group = item / output_items(product) * job->groups_per_item;
    int groups = least(product->groups - first_group, job->groups_per_item);
    multiply_block(job, product, item % output_items(product) * outputs_per_item(product),
                   product->first_group + first_group, groups);
}

// Some outputs of all products: no other thread adds to these.
static void add_item(void *context, int item) {
    const ProductJob *job = context;
    for (int i = 0; i < job->number; i++) {
        const Product *product = job->products + i;
        for (int group = 0; group < product->groups; group += GROUPS_PER_ITEM)
            multiply_block(job, product, item * OUTPUTS_PER_ITEM, product->first_group + group,
                           least(product->groups - group, GROUPS_PER_ITEM));
    }
}

// Multiplies quantised rows with weights. Fills in the first items of the products.
int hga_packed_many(const int16_t *values, const float *scales, Product *products,
                    const float *residual, float *out, int number, int rows, int groups,
                    int columns, int size_out) {
    ProductJob job = {.values = values,
                      .scales = scales,
                      .residual = residual,
                      .out = out,
                      .products = products,
                      .number = number,
                      .rows = rows,
                      .groups = groups,
                      .columns = columns,
                      .size_out = size_out,
                      .groups_per_item = GROUPS_PER_ITEM};
    int items = count_items(products, number, job.groups_per_item);
    // The fewer rows an item has, the more often weights are unpacked.
    while (items < 4 * threads_running() && job.groups_per_item > 8) {
        job.groups_per_item /= 2;
        items = count_items(products, number, job.groups_per_item);
    }
    parallel_for(multiply_item, &job, items);
    return 0;
}

// Multiplies quantised rows with weights of `size_out` outputs each, and adds shares of the products
// to rows of `out`.
int hga_packed_add(const int16_t *values, const float *scales, Product *products,
                   const int32_t *targets, const float *shares, float *out, int number, int rows,
                   int groups, int columns, int size_out) {
    ProductJob job = {.values = values,
                      .scales = scales,
                      .targets = targets,
                      .shares = shares,
                      .out = out,
                      .products = products,
                      .number = number,
                      .rows = rows,
                      .groups = groups,
                      .columns = columns,
                      .size_out = size_out};
    parallel_for(add_item, &job, (size_out + OUTPUTS_PER_ITEM - 1) / OUTPUTS_PER_ITEM);
    return 0;
}

// out = inputs @ weight.T for packed weights and many rows, in integers of 16 bits.
//
// Every 256 columns, a row of inputs and a row of weights each become 16-bit integers times one
// scale. Products of such integers are what CPUs multiply fastest next to bytes (VPDPWSSD,
// VPMADDWD). Scales bound the Euclidean norms of the 256 integers, so that by Cauchy and Schwarz no
// sum of products leaves 32 bits. On the weights of Qwen2.5-Coder-1.5B this changes outputs by
// 1.6e-4 of their root mean square; factors in bf16 change them by 2.4e-3, and inputs of 8 bits with
// a scale for every 32 by 5.4e-3.
//
// Vectors hold 16 rows of inputs. Rows of weights are unpacked one by one, next to their use, and
// broadcast.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "amx.h"
#include "bf16.h"
#include "exp2.h"
#include "packed.h"
#include "parallel.h"

enum {
    ROWS = 16,              // of a group, side by side in a vector
    PAIRS = TILE / 2,       // pairs of columns in a tile
    OUTPUTS_PER_ITEM = 48,  // a multiple of OUTPUTS and of ROWS
    GROUPS_PER_ITEM = 64,   // at most: groups of rows
};

// The largest norm of 256 integers, and the largest integer. The square of the norm, with what
// rounding adds to it, is below 2^31.
static const float LARGEST_NORM = 46000, LARGEST = 32760;

#if defined(HGA_AVX512_VNNI)
enum { OUTPUTS = 12, GROUPS = 2 };  // of a block of products in registers

// Transposes 16 x 16 numbers of 32 bits.
INLINE void transpose(__m512i *rows) {
    __m512i pairs[16], fours[16], eights[16];
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            eights[i + j] = _mm512_shuffle_i32x4(fours[i + j], fours[i + j + 4], 0x88);
            eights[i + j + 4] = _mm512_shuffle_i32x4(fours[i + j], fours[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        rows[j] = _mm512_shuffle_i32x4(eights[j], eights[j + 8], 0x88);
        rows[j + 8] = _mm512_shuffle_i32x4(eights[j], eights[j + 8], 0xdd);
    }
}
#elif defined(__AVX2__)
enum { OUTPUTS = 6, GROUPS = 1 };
#else
enum { OUTPUTS = 4, GROUPS = 1 };
#endif

// out[column][row] = in[row][column] for 16 rows; `columns` is a multiple of 8, rows are `stride`
// numbers apart.
INLINE void transpose_rows(const uint32_t *in, size_t stride, int columns, uint32_t *out) {
    int column = 0;
#if defined(HGA_AVX512_VNNI)
    for (; column + 16 <= columns; column += 16) {
        __m512i rows[16];
        for (int i = 0; i < 16; i++) rows[i] = _mm512_loadu_si512(in + i * stride + column);
        transpose(rows);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (column + i) * ROWS, rows[i]);
    }
#endif
    for (; column < columns; column++)
        for (int row = 0; row < ROWS; row++) out[column * ROWS + row] = in[row * stride + column];
}

// Columns that a row of quantised inputs has: full halves of a sub-block.
INLINE int padded(int columns) { return (columns + 15) / 16 * 16; }

INLINE int tiles_of(int columns) { return (columns + TILE - 1) / TILE; }

INLINE int least(int a, int b) { return a < b ? a : b; }

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

// Quantises up to 256 numbers, a multiple of 16, and returns their scale: NaN if one is not finite.
INLINE float quantize(const float *in, int size, int16_t *out) {
    float sizes[LANES] = {0}, zeros[LANES] = {0}, squares[LANES] = {0};
    for (int i = 0; i < size; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float of = fabsf(in[i + j]);
            sizes[j] = of > sizes[j] ? of : sizes[j];
            zeros[j] += in[i + j] * 0.0f;
        }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) {
            sizes[j] = sizes[j + half] > sizes[j] ? sizes[j + half] : sizes[j];
            zeros[j] += zeros[j + half];
        }
    // Numbers whose inverse is infinite become 0.
    float largest = sizes[0], inverse = largest > 1e-34f ? 1.0f / largest : 0.0f;
    for (int i = 0; i < size; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float part = in[i + j] * inverse;
            squares[j] += part * part;
        }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) squares[j] += squares[j + half];
    float steps = LARGEST_NORM / sqrtf(squares[0]);
    steps = inverse == 0 ? 1.0f : steps < LARGEST ? steps : LARGEST;
    inverse *= steps;
    for (int i = 0; i < size; i++) out[i] = (int16_t)(int32_t)__builtin_rintf(in[i] * inverse);
    return largest / steps + zeros[0];
}

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
            } else {
                memcpy(numbers, from, size * sizeof(float));
            }
            scales[i] = quantize(numbers, wide, integers[i]);
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

// --- Weights -------------------------------------------------------------------------------------

// value * multiplier / 2^15, rounded.
INLINE int scaled(int value, int multiplier) { return (value * multiplier + (1 << 14)) >> 15; }

INLINE float sum_of_lanes(const float *lanes) {
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += lanes[i];
    return sum;
}

// The bound of a tile's weights and of what they are multiplied with below.
INLINE float largest_of(const Tile *tile, int per_scale, float top) {
    const float *scales = (const float *)tile->scales, *minima = (const float *)tile->minima;
    float bounds[8] = {0};
    for (int i = 0; i < TILE / per_scale; i += 8)
        for (int j = 0; j < 8; j++) {
            float multiplier = fabsf(scales[i + j]) * (top + 1), low = fabsf(minima[i + j]);
            float high = fabsf(scales[i + j] * top - minima[i + j]);
            low = low > high ? low : high;
            low = low > multiplier ? low : multiplier;
            bounds[j] = low > bounds[j] ? low : bounds[j];
        }
    for (int half = 4; half; half /= 2)
        for (int j = 0; j < half; j++)
            bounds[j] = bounds[j + half] > bounds[j] ? bounds[j + half] : bounds[j];
    return bounds[0];
}

// Converts an unpacked tile to 16-bit integers and returns the sum of their squares. `per_scale`
// weights share a scale; values have at most `bits` bits.
INLINE float to_integers(const Tile *tile, int subs, int per_scale, int bits, float inverse,
                         int16_t *out) {
    const float *scales = (const float *)tile->scales, *minima = (const float *)tile->minima;
    // value * scale is (value << 15 - bits) * multiplier >> 15
    float to_multiplier = inverse * (float)(1 << bits);
    int16_t multipliers[16], offsets[16];
    for (int i = 0; i < TILE / per_scale; i++) {
        multipliers[i] = (int16_t)(int32_t)__builtin_rintf(scales[i] * to_multiplier);
        offsets[i] = (int16_t)(int32_t)__builtin_rintf(minima[i] * inverse);
    }
    const uint8_t *values = (const uint8_t *)tile->values;
    float squares[8] = {0};
#if defined(__AVX2__)
    __m256 sums = _mm256_setzero_ps();
    for (int i = 0; i < subs * 2; i++) {
        int index = per_scale == 16 ? i : i / 2;
        __m256i wide = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)values + i));
        wide = _mm256_mulhrs_epi16(_mm256_slli_epi16(wide, 15 - bits),
                                   _mm256_set1_epi16(multipliers[index]));
        wide = _mm256_sub_epi16(wide, _mm256_set1_epi16(offsets[index]));
        _mm256_store_si256((__m256i *)out + i, wide);
        sums = _mm256_add_ps(sums, _mm256_cvtepi32_ps(_mm256_madd_epi16(wide, wide)));
    }
    _mm256_storeu_ps(squares, sums);
#else
    for (int i = 0; i < subs * SUB; i++) {
        int index = i / per_scale;
        int value = scaled(values[i] << (15 - bits), multipliers[index]) - offsets[index];
        out[i] = (int16_t)value;
        squares[i % 8] += (float)(value * value);
    }
#endif
    for (int half = 4; half; half /= 2)
        for (int j = 0; j < half; j++) squares[j] += squares[j + half];
    return squares[0];
}

// Multiplies integers by `multiplier` / 2^15.
INLINE void shrink(int16_t *values, int size, int multiplier) {
#if defined(__AVX2__)
    __m256i multipliers = _mm256_set1_epi16((int16_t)multiplier);
    for (int i = 0; i < size; i += 16) {
        __m256i *part = (__m256i *)(values + i);
        _mm256_store_si256(part, _mm256_mulhrs_epi16(_mm256_load_si256(part), multipliers));
    }
#else
    for (int i = 0; i < size; i++) values[i] = (int16_t)scaled(values[i], multiplier);
#endif
}

typedef void Unpack(const uint8_t *block, int subs, Tile *tile);

// Converts a tile of up to 16 rows to integers, step by step for all of them: a step waits long for
// the one before. Rows are `bytes` apart, integers TILE.
INLINE void unpack_rows(Unpack *unpack, int per_scale, int bits, const uint8_t *rows, size_t bytes,
                        int count, int subs, int16_t *out, float *scales) {
    _Alignas(64) Tile tiles[ROWS];
    float largest[ROWS] = {0}, inverses[ROWS], squares[ROWS] = {0}, found[ROWS];
    int32_t multipliers[ROWS];
    for (int i = 0; i < count; i++) {
        unpack(rows + i * bytes, subs, tiles + i);
        largest[i] = largest_of(tiles + i, per_scale, (float)((1 << bits) - 1));
    }
    for (int i = 0; i < ROWS; i++) inverses[i] = largest[i] > 0 ? LARGEST / largest[i] : 0;
    for (int i = 0; i < count; i++)
        squares[i] = to_integers(tiles + i, subs, per_scale, bits, inverses[i], out + i * TILE);
    for (int i = 0; i < ROWS; i++) {
        float part = LARGEST_NORM / sqrtf(squares[i] > 1 ? squares[i] : 1) * 32768.0f;
        multipliers[i] = part < 32767.0f ? (int32_t)part : 32767;
        found[i] = largest[i] / LARGEST * (32768.0f / (float)multipliers[i]);
    }
    for (int i = 0; i < count; i++) shrink(out + i * TILE, subs * SUB, multipliers[i]);
    memcpy(scales, found, count * sizeof(float));
}

enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 30 };  // numbers of formats in GGUF files

INLINE void read_floats(const uint8_t *row, int type, size_t first, int size, float *out) {
    if (type == TYPE_F32) memcpy(out, row + 4 * first, size * sizeof(float));
    if (type == TYPE_F16)
        for (int i = 0; i < size; i++) out[i] = load_half(row + 2 * (first + i));
    if (type == TYPE_BF16)
        for (int i = 0; i < size; i++) out[i] = from_bf16(((const uint16_t *)row)[first + i]);
}

// Of each format.
enum {
    BITS_q4_0 = 4,
    BITS_q4_1 = 4,
    BITS_q5_0 = 5,
    BITS_q5_1 = 5,
    BITS_q8_0 = 8,
    BITS_q2_k = 2,
    BITS_q3_k = 3,
    BITS_q4_k = 4,
    BITS_q5_k = 5,
    BITS_q6_k = 6,
    BITS_iq4_nl = 8,
    BITS_iq4_xs = 8,
};

// Converts up to 256 columns of up to 16 rows to 16-bit integers and their scales.
static void unpack_tile(const uint8_t *rows, size_t bytes, int type, int tile, int columns,
                        int count, int16_t *out, float *scales) {
    int size = least(columns - tile * TILE, TILE), subs = (size + SUB - 1) / SUB;
    switch (type) {
#define CASE(name, number, block, bytes_of, per_scale)                                  \
    case number:                                                                        \
        unpack_rows(unpack_##name, per_scale, BITS_##name,                              \
                    rows + (size_t)tile * (TILE / block) * bytes_of, bytes, count, subs, \
                    out, scales);                                                       \
        break;
        PACKED_FORMATS(CASE)
#undef CASE
        default:
            for (int i = 0; i < count; i++) {
                _Alignas(64) float numbers[TILE] = {0};
                read_floats(rows + i * bytes, type, (size_t)tile * TILE, size, numbers);
                scales[i] = quantize(numbers, padded(size), out + i * TILE);
            }
    }
}

INLINE size_t row_bytes(int type, int columns) {
    switch (type) {
#define CASE(name, number, block, bytes, per_scale) \
    case number: return (size_t)columns / block * bytes;
        PACKED_FORMATS(CASE)
#undef CASE
        default: return (size_t)columns * (type == TYPE_F32 ? 4 : 2);
    }
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

// --- Weights in bf16, for a product by AMX -------------------------------------------------------

typedef struct {
    const uint8_t *weight;
    uint16_t *out;  // [outputs, columns]
    int type, first, columns;
} WidenJob;

INLINE void widen_tile(Unpack *unpack, int per_scale, const uint8_t *blocks, int size,
                       uint16_t *out) {
    _Alignas(64) Tile tile;
    unpack(blocks, (size + SUB - 1) / SUB, &tile);
    const float *scales = (const float *)tile.scales, *minima = (const float *)tile.minima;
    const uint8_t *values = (const uint8_t *)tile.values;
    for (int i = 0; i < size; i += 16) {
        float scale = scales[i / per_scale], minimum = minima[i / per_scale];
        for (int j = 0; j < 16; j++)
            out[i + j] = round_bf16(scale * (float)values[i + j] - minimum);
    }
}

static void widen_row(void *context, int row) {
    const WidenJob *job = context;
    const uint8_t *from = job->weight + (size_t)(job->first + row) * row_bytes(job->type, job->columns);
    uint16_t *out = job->out + (size_t)row * job->columns;
    for (int first = 0; first < job->columns; first += TILE) {
        int size = least(job->columns - first, TILE);
        switch (job->type) {
#define CASE(name, number, block, bytes, per_scale)                                             \
    case number:                                                                                \
        widen_tile(unpack_##name, per_scale, from + (size_t)first / block * bytes, size,        \
                   out + first);                                                                \
        break;
            PACKED_FORMATS(CASE)
#undef CASE
            default: {
                float numbers[TILE];
                read_floats(from, job->type, first, size, numbers);
                for (int i = 0; i < size; i++) out[first + i] = round_bf16(numbers[i]);
            }
        }
    }
}

// Unpacks some rows of a weight to bf16.
int hga_packed_to_bf16(const uint8_t *weight, uint16_t *out, int type, int first, int count,
                       int columns) {
    WidenJob job = {weight, out, type, first, columns};
    parallel_for(widen_row, &job, count);
    return 0;
}

int hga_has_amx(void) { return allow_amx(); }

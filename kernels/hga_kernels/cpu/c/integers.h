// Rows of inputs and of packed weights as integers of 16 bits, for products of many rows.
//
// Every 256 columns, a row of inputs and a row of weights each become 16-bit integers times one
// scale. Products of such integers are what CPUs multiply fastest next to bytes (VPDPWSSD,
// VPMADDWD). Scales bound the Euclidean norms of the 256 integers, so that by Cauchy and Schwarz no
// sum of products leaves 32 bits. On the weights of Qwen2.5-Coder-1.5B this changes outputs by
// 1.6e-4 of their root mean square; factors in bf16 change them by 2.4e-3, and inputs of 8 bits with
// a scale for every 32 by 5.4e-3.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bf16.h"
#include "packed.h"

enum {
    ROWS = 16,         // of a group, side by side in a vector
    PAIRS = TILE / 2,  // pairs of columns in a tile
};

// The largest norm of 256 integers, and the largest integer. The square of the norm, with what
// rounding adds to it, is below 2^31.
static const float LARGEST_NORM = 46000, LARGEST = 32760;

#if defined(HGA_AVX512_VNNI)
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

// Quantises up to 256 numbers, a multiple of 16, and returns their scale: NaN if one is not finite.
INLINE float quantize(const float *in, int size, int16_t *out) {
    float sizes[LANES] = {0}, squares[LANES] = {0};
    for (int i = 0; i < size; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float of = fabsf(in[i + j]);
            sizes[j] = of > sizes[j] ? of : sizes[j];
            squares[j] += of * of;
        }
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) {
            sizes[j] = sizes[j + half] > sizes[j] ? sizes[j + half] : sizes[j];
            squares[j] += squares[j + half];
        }
    float largest = sizes[0], norm = sqrtf(squares[0]);
    if (!(norm > 1e-15f && norm < 1e18f)) {
        // Squares of numbers as small or as large as these are lost; or one is not a number.
        float inverse = largest > 1e-34f ? 1.0f / largest : 0.0f, sum = 0, zeros = 0;
        for (int i = 0; i < size; i++) {
            sum += in[i] * inverse * (in[i] * inverse);
            zeros += in[i] * 0.0f;
        }
        // Numbers whose inverse is infinite become 0.
        norm = sqrtf(sum) * largest;
        if (inverse == 0 || zeros != 0) {
            memset(out, 0, size * sizeof *out);
            return zeros;
        }
    }
    float steps = LARGEST_NORM / norm < LARGEST / largest ? LARGEST_NORM / norm : LARGEST / largest;
    for (int i = 0; i < size; i++) out[i] = (int16_t)(int32_t)__builtin_rintf(in[i] * steps);
    return 1.0f / steps;
}

#if !defined(__AVX2__)
// value * multiplier / 2^15, rounded.
INLINE int scaled(int value, int multiplier) { return (value * multiplier + (1 << 14)) >> 15; }
#endif

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
static inline void unpack_tile(const uint8_t *rows, size_t bytes, int type, int tile, int columns,
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

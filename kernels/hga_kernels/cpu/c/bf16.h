// bf16 helpers. Every function has an AVX-512 form and a portable one that compilers vectorise.
#pragma once

#include <stdint.h>
#include <string.h>

enum { LANES = 16 };  // float32 numbers in a vector

#if defined(__AVX512BF16__) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define HGA_AVX512_BF16 1
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__)
#include <immintrin.h>
#define HGA_AVX512_VNNI 1
#endif

static inline float from_bf16(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

// Rounds to nearest even, as torch does. Branch-free, so that loops vectorise. A NaN whose payload
// is all ones becomes another number; torch never produces one.
static inline uint16_t round_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// round_bf16 for any value: NaN stays NaN.
static inline uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : round_bf16(value);
}

static inline float dot_bf16(const uint16_t *a, const uint16_t *b, int size) {
    float sum = 0;
    int i = 0;
#ifdef HGA_AVX512_BF16
    __m512 sums[4];
    for (int j = 0; j < 4; j++) sums[j] = _mm512_setzero_ps();
    for (; i + 128 <= size; i += 128)
        for (int j = 0; j < 4; j++)
            sums[j] = _mm512_dpbf16_ps(sums[j], (__m512bh)_mm512_loadu_si512(a + i + 32 * j),
                                       (__m512bh)_mm512_loadu_si512(b + i + 32 * j));
    for (; i + 32 <= size; i += 32)
        sums[0] = _mm512_dpbf16_ps(sums[0], (__m512bh)_mm512_loadu_si512(a + i),
                                   (__m512bh)_mm512_loadu_si512(b + i));
    sum = _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
#else
    float sums[16] = {0};
    for (; i + 16 <= size; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += from_bf16(a[i + j]) * from_bf16(b[i + j]);
    for (int j = 0; j < 16; j++) sum += sums[j];
#endif
    for (; i < size; i++) sum += from_bf16(a[i]) * from_bf16(b[i]);
    return sum;
}

// Sums in 16 lanes, so that the loop vectorises. `size` is a multiple of 16.
static inline float dot_float(const float *a, const float *b, int size) {
    float lanes[16] = {0};
    for (int i = 0; i < size; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += a[i + j] * b[i + j];
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

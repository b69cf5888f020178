// Powers of two in float32, by the minimax polynomial of degree 4 on [0, 1]. The relative error is
// below 3e-6.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>

// 2^x for finite x; 0 for anything far below -126.
static inline __m512 exp2_near(__m512 x) {
    __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 value = _mm512_set1_ps(1.35341523e-2f);
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(5.20114912e-2f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(2.41442737e-1f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(6.93003839e-1f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(1.00000259f));
    return _mm512_scalef_ps(value, x);  // times 2^floor(x)
}

// 2^x for x <= 0, including minus infinity.
static inline __m512 exp2_512(__m512 x) {
    return exp2_near(_mm512_max_ps(x, _mm512_set1_ps(-200.0f)));
}
#endif

// 2^x for -126 <= x <= 127.
static inline float exp2_finite(float x) {
    float whole = floorf(x), part = x - whole;
    float value = 1.35341523e-2f;
    value = value * part + 5.20114912e-2f;
    value = value * part + 2.41442737e-1f;
    value = value * part + 6.93003839e-1f;
    value = value * part + 1.00000259f;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return value * scale;
}

static inline float exp2_1(float x) { return x < -126.0f ? 0.0f : exp2_finite(x); }

// e^x, clamped to the range of float32. Branch-free, so that loops vectorise.
static inline float exp_finite(float x) {
    float scaled = x * 1.44269504f;
    scaled = scaled < -126.0f ? -126.0f : scaled;
    scaled = scaled > 127.0f ? 127.0f : scaled;
    return exp2_finite(scaled);
}

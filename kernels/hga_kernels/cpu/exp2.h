// Powers of two in float32 by the polynomial of degree 4 whose largest relative error on
// [-0.5, 0.5] is least: below 3e-6.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>

// 2^x for finite x; anything far under -126 gives 0.
static inline __m512 exp2_near(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 part = _mm512_sub_ps(x, whole);
    __m512 value = _mm512_set1_ps(9.5700601e-3f);
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(5.5917785e-2f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(2.4024745e-1f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(6.9312183e-1f));
    value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(9.9999926e-1f));
    return _mm512_scalef_ps(value, whole);
}

// 2^x for x <= 0, minus infinity too.
static inline __m512 exp2_512(__m512 x) {
    return exp2_near(_mm512_max_ps(x, _mm512_set1_ps(-200.0f)));
}
#endif

// 2^x for -126 <= x <= 127.
static inline float exp2_finite(float x) {
    float whole = rintf(x), part = x - whole;
    float value = 9.5700601e-3f;
    value = value * part + 5.5917785e-2f;
    value = value * part + 2.4024745e-1f;
    value = value * part + 6.9312183e-1f;
    value = value * part + 9.9999926e-1f;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return value * scale;
}

static inline float exp2_1(float x) { return x < -126.0f ? 0.0f : exp2_finite(x); }

// e^x, clamped to what float32 holds. Branch-free, so that loops vectorise.
static inline float exp_finite(float x) {
    float scaled = x * 1.44269504f;
    scaled = scaled < -126.0f ? -126.0f : scaled;
    scaled = scaled > 127.0f ? 127.0f : scaled;
    return exp2_finite(scaled);
}

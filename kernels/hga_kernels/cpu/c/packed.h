// Packed weights: blocks of quantised numbers as GGUF files store them, unpacked to bytes.
//
// A tile is 256 consecutive weights of a row, or fewer at its end. A weight is the scale of its
// sub-block times a byte, minus the minimum of the sub-block. Layouts are those of ggml-common.h in
// llama.cpp.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { SUB = 32, SUBS = 8, TILE = SUB * SUBS };

typedef uint8_t Bytes __attribute__((vector_size(32)));
typedef uint8_t PairBytes __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint32_t PairWords __attribute__((vector_size(64)));
typedef uint8_t HalfBytes __attribute__((vector_size(16)));
typedef uint8_t EightBytes __attribute__((vector_size(8)));
typedef int8_t EightSigned __attribute__((vector_size(8)));
typedef _Float16 TwoHalves __attribute__((vector_size(4)));
typedef float TwoFloats __attribute__((vector_size(8)));
typedef _Float16 EightHalves __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))

// Formats with scales for 32 weights use the first vectors only, those for 16 weights both.
typedef struct {
    union {
        Bytes values[SUBS];
        PairBytes pairs[SUBS / 2];  // of sub-blocks
    };
    Floats scales[2], minima[2];
} Tile;

INLINE Bytes load_bytes(const void *from) {
    Bytes out;
    memcpy(&out, from, sizeof out);
    return out;
}

INLINE Floats load_floats(const void *from) {
    Floats out;
    memcpy(&out, from, sizeof out);
    return out;
}

INLINE float load_half(const uint8_t *from) {
    _Float16 half;
    memcpy(&half, from, sizeof half);
    return (float)half;
}

INLINE uint32_t load_word(const uint8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

INLINE Floats bytes_to_floats(uint64_t bytes) {
    EightBytes eight;
    memcpy(&eight, &bytes, sizeof eight);
    return __builtin_convertvector(eight, Floats);
}

INLINE Floats signed_to_floats(uint64_t bytes) {
    EightSigned eight;
    memcpy(&eight, &bytes, sizeof eight);
    return __builtin_convertvector(eight, Floats);
}

// The low halves of 16 bytes, then the high halves.
INLINE Bytes nibbles(const uint8_t *from) {
    HalfBytes raw;
    memcpy(&raw, from, sizeof raw);
    Bytes twice = __builtin_shufflevector(raw, raw, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                          14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                                          15);
    return (Bytes)((Words)twice >> (Words){0, 0, 0, 0, 4, 4, 4, 4}) & 15;
}

// The low halves of 32 bytes, then the high halves.
INLINE PairBytes pair_nibbles(const uint8_t *from) {
    Bytes raw = load_bytes(from);
    PairBytes twice = __builtin_shufflevector(
        raw, raw, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
        23, 24, 25, 26, 27, 28, 29, 30, 31, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    PairWords shifts = {0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4};
    return (PairBytes)((PairWords)twice >> shifts) & 15;
}

// 16 where the bit of a weight is set.
INLINE Bytes fifth_bits(const uint8_t *from) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return (Bytes)_mm256_maskz_set1_epi8(load_word(from), 16);
#else
    EightBytes raw = {from[0], from[1], from[2], from[3]};
    Bytes spread =
        __builtin_shufflevector(raw, raw, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    Bytes masks = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                   1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return (Bytes)((spread & masks) == masks) & 16;
#endif
}

// What the 4-bit numbers of the IQ4 formats stand for, plus 128.
INLINE Bytes iq4_values(Bytes codes) {
    static const uint8_t table[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                      129, 141, 153, 166, 181, 197, 217, 241};
#if defined(__AVX2__)
    __m256i pairs = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (Bytes)_mm256_shuffle_epi8(pairs, (__m256i)codes);
#else
    Bytes out;
    for (int i = 0; i < SUB; i++) out[i] = table[codes[i]];
    return out;
#endif
}

// The scales of formats with blocks of 32, which begin with one.
INLINE void block_scales(const uint8_t *blocks, size_t bytes, int subs, int zero, Tile *tile) {
    uint64_t four[2] = {0};
    for (int sub = 0; sub < subs; sub++) {
        uint16_t half;
        memcpy(&half, blocks + sub * bytes, sizeof half);
        four[sub / 4] |= (uint64_t)half << 16 * (sub % 4);
    }
    EightHalves halves;
    memcpy(&halves, four, sizeof halves);
    tile->scales[0] = __builtin_convertvector(halves, Floats);
    tile->minima[0] = tile->scales[0] * (float)zero;
}

// The minima of formats whose blocks of 32 begin with a scale and a minimum to add.
INLINE void block_minima(const uint8_t *blocks, size_t bytes, int subs, Tile *tile) {
    block_scales(blocks + 2, bytes, subs, 0, tile);
    tile->minima[0] = -tile->scales[0];
    Floats minima = tile->minima[0];
    block_scales(blocks, bytes, subs, 0, tile);
    tile->minima[0] = minima;
}

INLINE void unpack_q4_0(const uint8_t *blocks, int subs, Tile *tile) {
    block_scales(blocks, 18, subs, 8, tile);
    for (int sub = 0; sub < subs; sub++) tile->values[sub] = nibbles(blocks + 18 * sub + 2);
}

INLINE void unpack_q4_1(const uint8_t *blocks, int subs, Tile *tile) {
    block_minima(blocks, 20, subs, tile);
    for (int sub = 0; sub < subs; sub++) tile->values[sub] = nibbles(blocks + 20 * sub + 4);
}

INLINE void unpack_q5_0(const uint8_t *blocks, int subs, Tile *tile) {
    block_scales(blocks, 22, subs, 16, tile);
    for (int sub = 0; sub < subs; sub++) {
        const uint8_t *block = blocks + 22 * sub;
        tile->values[sub] = nibbles(block + 6) | fifth_bits(block + 2);
    }
}

INLINE void unpack_q5_1(const uint8_t *blocks, int subs, Tile *tile) {
    block_minima(blocks, 24, subs, tile);
    for (int sub = 0; sub < subs; sub++) {
        const uint8_t *block = blocks + 24 * sub;
        tile->values[sub] = nibbles(block + 8) | fifth_bits(block + 4);
    }
}

INLINE void unpack_q8_0(const uint8_t *blocks, int subs, Tile *tile) {
    block_scales(blocks, 34, subs, 128, tile);
    for (int sub = 0; sub < subs; sub++) tile->values[sub] = load_bytes(blocks + 34 * sub + 2) ^ 128;
}

INLINE void unpack_iq4_nl(const uint8_t *blocks, int subs, Tile *tile) {
    block_scales(blocks, 18, subs, 128, tile);
    for (int sub = 0; sub < subs; sub++)
        tile->values[sub] = iq4_values(nibbles(blocks + 18 * sub + 2));
}

// Eight scales and minima of 6 bits in 12 bytes.
INLINE void six_bit_scales(const uint8_t *block, Tile *tile) {
    uint32_t low = load_word(block + 4), middle = load_word(block + 8);
    uint32_t high = load_word(block + 12);
    uint32_t scales[2] = {low & 0x3f3f3f3f, (high & 0x0f0f0f0f) | (low >> 2 & 0x30303030)};
    uint32_t minima[2] = {middle & 0x3f3f3f3f,
                          (high >> 4 & 0x0f0f0f0f) | (middle >> 2 & 0x30303030)};
    uint64_t scale_bytes = scales[0] | (uint64_t)scales[1] << 32;
    uint64_t minimum_bytes = minima[0] | (uint64_t)minima[1] << 32;
    TwoHalves halves;
    memcpy(&halves, block, sizeof halves);
    TwoFloats factors = __builtin_convertvector(halves, TwoFloats);
    tile->scales[0] = bytes_to_floats(scale_bytes) * factors[0];
    tile->minima[0] = bytes_to_floats(minimum_bytes) * factors[1];
}

INLINE void unpack_q4_k(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    six_bit_scales(block, tile);
    for (int pair = 0; pair < 4; pair++) tile->pairs[pair] = pair_nibbles(block + 16 + 32 * pair);
}

INLINE void unpack_q5_k(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    six_bit_scales(block, tile);
    Bytes high = load_bytes(block + 16);
    for (int pair = 0; pair < 4; pair++) {
        Bytes raw = load_bytes(block + 48 + 32 * pair), bits = high >> (uint8_t)(2 * pair);
        tile->values[2 * pair] = (raw & 15) | (bits << 4 & 16);
        tile->values[2 * pair + 1] = raw >> 4 | (bits << 3 & 16);
    }
}

INLINE void unpack_q6_k(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    for (int half = 0; half < 2; half++) {
        Bytes first = load_bytes(block + 64 * half), second = load_bytes(block + 64 * half + 32);
        Bytes high = load_bytes(block + 128 + 32 * half), *values = tile->values + 4 * half;
        values[0] = (first & 15) | (high << 4 & 48);
        values[1] = (second & 15) | (high << 2 & 48);
        values[2] = first >> 4 | (high & 48);
        values[3] = second >> 4 | (high >> 2 & 48);
        uint64_t scales;
        memcpy(&scales, block + 192 + 8 * half, sizeof scales);
        tile->scales[half] = signed_to_floats(scales) * load_half(block + 208);
        tile->minima[half] = tile->scales[half] * 32.0f;
    }
}

INLINE void unpack_q2_k(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    for (int half = 0; half < 2; half++) {
        Bytes raw = load_bytes(block + 16 + 32 * half);
        for (int i = 0; i < 4; i++) tile->values[4 * half + i] = raw >> (uint8_t)(2 * i) & 3;
        uint64_t factors;
        memcpy(&factors, block + 8 * half, sizeof factors);
        uint64_t scales = factors & 0x0f0f0f0f0f0f0f0f, minima = factors >> 4 & 0x0f0f0f0f0f0f0f0f;
        tile->scales[half] = bytes_to_floats(scales) * load_half(block + 80);
        tile->minima[half] = bytes_to_floats(minima) * load_half(block + 82);
    }
}

INLINE void unpack_q3_k(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    Bytes high = load_bytes(block);
    uint64_t low;  // the low 4 bits of scales 0 to 7 and of scales 8 to 15
    memcpy(&low, block + 96, sizeof low);
    uint32_t top = load_word(block + 104);  // the high 2 bits of all
    for (int half = 0; half < 2; half++) {
        Bytes raw = load_bytes(block + 32 + 32 * half), bits = high >> (uint8_t)(4 * half);
        for (int i = 0; i < 4; i++)
            tile->values[4 * half + i] =
                (raw >> (uint8_t)(2 * i) & 3) | ((bits >> (uint8_t)i & 1) << 2);
        uint64_t tops = (top >> 4 * half & 0x03030303) |
                        (uint64_t)(top >> (4 * half + 2) & 0x03030303) << 32;
        uint64_t scales = (low >> 4 * half & 0x0f0f0f0f0f0f0f0f) | tops << 4;
        tile->scales[half] = (bytes_to_floats(scales) - 32.0f) * load_half(block + 108);
        tile->minima[half] = tile->scales[half] * 4.0f;
    }
}

INLINE void unpack_iq4_xs(const uint8_t *block, int subs, Tile *tile) {
    (void)subs;
    uint32_t low = load_word(block + 4), high = block[2] | (uint32_t)block[3] << 8;
    Floats scales;
    for (int sub = 0; sub < SUBS; sub++) {
        int scale = (low >> 4 * sub & 15) | (high >> 2 * sub & 3) << 4;
        scales[sub] = (float)(scale - 32);
        tile->values[sub] = iq4_values(nibbles(block + 8 + 16 * sub));
    }
    tile->scales[0] = scales * load_half(block);
    tile->minima[0] = tile->scales[0] * 128.0f;
}

// X(name, number in GGUF files, weights and bytes of a block, weights per scale)
#define PACKED_FORMATS(X)    \
    X(q4_0, 2, 32, 18, 32)   \
    X(q4_1, 3, 32, 20, 32)   \
    X(q5_0, 6, 32, 22, 32)   \
    X(q5_1, 7, 32, 24, 32)   \
    X(q8_0, 8, 32, 34, 32)   \
    X(q2_k, 10, 256, 84, 16) \
    X(q3_k, 11, 256, 110, 16) \
    X(q4_k, 12, 256, 144, 32) \
    X(q5_k, 13, 256, 176, 32) \
    X(q6_k, 14, 256, 210, 16) \
    X(iq4_nl, 20, 32, 18, 32) \
    X(iq4_xs, 23, 256, 136, 32)

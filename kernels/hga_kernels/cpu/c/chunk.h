// A chunk of the index, as encode.c writes it and the selection scores it.
//
// The codes of a slab, 16 tokens, lie as [head_dim / 16][16 tokens][4 bytes]. Byte j of entry m
// holds the codes of dimensions 16m + 4i + j for i = 0..3 in its bit pairs, so that unpacking pair
// i of an entry gives 16 tokens x 4 dimensions: the operand of a byte dot product, a lane per
// token.
#pragma once

#include <math.h>

enum { CHUNK = 64, SLAB = 16, SLABS = CHUNK / SLAB, MAX_DIM = 256 };

// Multiplies by the orthonormal Hadamard matrix, in place.
static inline void hadamard(float *values, int dim) {
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

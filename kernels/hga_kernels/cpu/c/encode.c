// Builds the index entries of whole chunks: mixed-RoPE summaries and 2-bit token codes.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bf16.h"
#include "chunk.h"
#include "parallel.h"

typedef struct {
    const uint16_t *keys;     // [kv_heads, chunks * CHUNK, dim] bf16
    const uint16_t *centres;  // [kv_heads, chunks, dim] bf16
    uint8_t *codes;           // [kv_heads, chunks, SLABS, dim / 16, SLAB, 4]
    uint16_t *scales;         // [kv_heads, chunks, CHUNK] bf16
    int dim;
} EncodeJob;

static void encode_chunk(void *context, int item) {
    const EncodeJob *job = context;
    int dim = job->dim;
    const uint16_t *centre = job->centres + (size_t)item * dim;
    uint8_t *codes = job->codes + (size_t)item * CHUNK * dim / 4;
    memset(codes, 0, (size_t)CHUNK * dim / 4);
    for (int t = 0; t < CHUNK; t++) {
        const uint16_t *key = job->keys + ((size_t)item * CHUNK + t) * dim;
        float values[MAX_DIM], squares = 0;
        for (int d = 0; d < dim; d++) values[d] = from_bf16(key[d]) - from_bf16(centre[d]);
        hadamard(values, dim);
        for (int d = 0; d < dim; d++) squares += values[d] * values[d];
        float spread = sqrtf(squares / (float)dim);
        float inverse = 1.0f / (spread > 1e-30f ? spread : 1e-30f);
        float products = 0, lengths = 0;
        uint8_t levels[MAX_DIM];
        for (int d = 0; d < dim; d++) {
            float level = floorf(values[d] * inverse + 2.0f);
            level = level < 0 ? 0 : level > 3 ? 3 : level;
            levels[d] = (uint8_t)level;
            products += values[d] * (level - 1.5f);
            lengths += (level - 1.5f) * (level - 1.5f);
        }
        job->scales[(size_t)item * CHUNK + t] = to_bf16(products / lengths);
        uint8_t *token = codes + (size_t)(t / SLAB) * SLAB * dim / 4 + t % SLAB * 4;
        for (int d = 0; d < dim; d++)
            token[d / 16 * SLAB * 4 + d % 4] |= (uint8_t)(levels[d] << (d / 4 % 4 * 2));
    }
}

int hga_encode_tokens(const uint16_t *keys, const uint16_t *centres, uint8_t *codes,
                      uint16_t *scales, int chunks, int dim) {
    EncodeJob job = {keys, centres, codes, scales, dim};
    parallel_for(encode_chunk, &job, chunks);
    return 0;
}

typedef struct {
    const uint16_t *keys;    // [runs, size, dim] bf16
    const float *cos, *sin;  // [size, dim / 2]
    float *out;              // [runs, dim]
    int size, dim;
} SummaryJob;

static void summarize_run(void *context, int run) {
    const SummaryJob *job = context;
    int half = job->dim / 2;
    float *sums = job->out + (size_t)run * job->dim;
    memset(sums, 0, sizeof(float) * job->dim);
    for (int t = 0; t < job->size; t++) {
        const uint16_t *key = job->keys + ((size_t)run * job->size + t) * job->dim;
        const float *cos = job->cos + (size_t)t * half, *sin = job->sin + (size_t)t * half;
        for (int i = 0; i < half; i++) {
            float first = from_bf16(key[i]), second = from_bf16(key[half + i]);
            sums[i] += first * cos[i] - second * sin[i];
            sums[half + i] += second * cos[i] + first * sin[i];
        }
    }
    for (int d = 0; d < job->dim; d++) sums[d] /= (float)job->size;
}

int hga_summarize(const uint16_t *keys, const float *cos, const float *sin, float *out, int runs,
                  int size, int dim) {
    SummaryJob job = {keys, cos, sin, out, size, dim};
    parallel_for(summarize_run, &job, runs);
    return 0;
}

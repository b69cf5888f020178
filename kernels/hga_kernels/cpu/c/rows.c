// Row-wise steps around the linear layers. Numbers are bf16 or float32, the arithmetic float32.
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "bf16.h"
#include "exp2.h"
#include "kernels.h"
#include "parallel.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS_PER_ITEM = 16, MAX_DIM = 512 };

// Compilers specialise what follows for either value of `is_float`.
INLINE float get(const void *from, size_t index, int is_float) {
    return is_float ? ((const float *)from)[index] : from_bf16(((const uint16_t *)from)[index]);
}

INLINE void put(void *to, size_t index, float value, int is_float) {
    if (is_float)
        ((float *)to)[index] = value;
    else
        ((uint16_t *)to)[index] = round_bf16(value);
}

INLINE float rounded(float value, int is_float) {
    return is_float ? value : from_bf16(round_bf16(value));
}

static int last_row(int item, int rows) {
    int last = (item + 1) * ROWS_PER_ITEM;
    return last < rows ? last : rows;
}

static int items_of(int rows) { return (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM; }

// 1 / sqrt(mean square + eps), summed in LANES lanes, so that the loop vectorises.
INLINE float norm_factor(const void *in, size_t first, int size, float eps, int is_float) {
    float lanes[LANES] = {0}, sum = 0;
    int i = 0;
    for (; i + LANES <= size; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float value = get(in, first + i + j, is_float);
            lanes[j] += value * value;
        }
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    for (; i < size; i++) sum += get(in, first + i, is_float) * get(in, first + i, is_float);
    return 1.0f / sqrtf(sum / (float)size + eps);
}

typedef struct {
    const void *inputs, *weight;
    void *out;
    int rows, size, is_float;
    float eps;
} NormJob;

INLINE void norm_rows(const NormJob *job, int item, int is_float) {
    for (int row = item * ROWS_PER_ITEM; row < last_row(item, job->rows); row++) {
        size_t first = (size_t)row * job->size;
        float factor = norm_factor(job->inputs, first, job->size, job->eps, is_float);
        for (int i = 0; i < job->size; i++) {
            float normed = rounded(get(job->inputs, first + i, is_float) * factor, is_float);
            put(job->out, first + i, normed * get(job->weight, i, is_float), is_float);
        }
    }
}

static void norm_item(void *context, int item) {
    const NormJob *job = context;
    if (job->is_float)
        norm_rows(job, item, 1);
    else
        norm_rows(job, item, 0);
}

int hga_rms_norm(const void *inputs, const void *weight, void *out, int rows, int size,
                 int is_float, float eps) {
    NormJob job = {inputs, weight, out, rows, size, is_float, eps};
    parallel_for(norm_item, &job, items_of(rows));
    return 0;
}

typedef struct {
    const void *inputs;      // [rows, heads of queries, keys and values, dim]
    const float *bias;       // [all heads, dim], or NULL
    const void *norms[2];    // [dim] of queries and of keys, or NULL
    const float *cos, *sin;  // [rows, dim / 2]
    const float *key_shift;  // [kv_heads, dim], or NULL
    void *outs[3];           // queries, keys, values: [rows, heads, dim]
    int rows, query_heads, kv_heads, dim, is_float, norms_are_float;
    float eps;
} SplitJob;

// Reads a head, normalises it and rotates it. Without a bias, bf16 numbers are rounded after every
// step, as in the reference.
INLINE void split_head(const SplitJob *job, int row, int head, int is_float) {
    int dim = job->dim, half = dim / 2;
    int kind = head < job->query_heads ? 0 : head < job->query_heads + job->kv_heads ? 1 : 2;
    int heads = kind == 0 ? job->query_heads : job->kv_heads;
    int own = kind == 0 ? head : (head - job->query_heads) % job->kv_heads;
    size_t first = ((size_t)row * (job->query_heads + 2 * job->kv_heads) + head) * dim;
    size_t out = ((size_t)row * heads + own) * dim;
    int is_wide = is_float || job->bias;
    float values[MAX_DIM];
    for (int i = 0; i < dim; i++) values[i] = get(job->inputs, first + i, is_float);
    if (job->bias)
        for (int i = 0; i < dim; i++) values[i] += job->bias[(size_t)head * dim + i];
    if (kind < 2 && job->norms[kind]) {
        float factor = norm_factor(values, 0, dim, job->eps, 1);
        for (int i = 0; i < dim; i++) {
            float weight = job->norms_are_float ? get(job->norms[kind], i, 1)
                                                : get(job->norms[kind], i, 0);
            values[i] = rounded(rounded(values[i] * factor, is_wide) * weight, is_wide);
        }
    }
    if (kind < 2) {
        const float *cos = job->cos + (size_t)row * half, *sin = job->sin + (size_t)row * half;
        for (int i = 0; i < half; i++) {
            float low = values[i], high = values[half + i];
            values[i] = low * cos[i] - high * sin[i];
            values[half + i] = high * cos[i] + low * sin[i];
        }
    }
    if (kind == 1 && job->key_shift)
        for (int i = 0; i < dim; i++) values[i] -= job->key_shift[(size_t)own * dim + i];
    for (int i = 0; i < dim; i++) put(job->outs[kind], out + i, values[i], is_float);
}

static void split_item(void *context, int item) {
    const SplitJob *job = context;
    int heads = job->query_heads + 2 * job->kv_heads;
    for (int row = item * ROWS_PER_ITEM; row < last_row(item, job->rows); row++)
        for (int head = 0; head < heads; head++)
            if (job->is_float)
                split_head(job, row, head, 1);
            else
                split_head(job, row, head, 0);
}

int hga_split_heads(const void *inputs, const float *bias, const void *q_norm, const void *k_norm,
                    const float *cos, const float *sin, const float *key_shift, void *queries,
                    void *keys, void *values, int rows, int query_heads, int kv_heads, int dim,
                    int is_float, int norms_are_float, float eps) {
    SplitJob job = {inputs,
                    bias,
                    {q_norm, k_norm},
                    cos,
                    sin,
                    key_shift,
                    {queries, keys, values},
                    rows,
                    query_heads,
                    kv_heads,
                    dim,
                    is_float,
                    norms_are_float,
                    eps};
    parallel_for(split_item, &job, items_of(rows));
    return 0;
}

typedef struct {
    const void *inputs;  // [rows, 2 * size]: gate, then up
    void *out;           // [rows, size]
    int rows, size, is_float;
} GateJob;

INLINE void gate_rows(const GateJob *job, int item, int is_float) {
    for (int row = item * ROWS_PER_ITEM; row < last_row(item, job->rows); row++) {
        size_t gate = (size_t)row * 2 * job->size, up = gate + job->size;
        for (int i = 0; i < job->size; i++) {
            float value = get(job->inputs, gate + i, is_float);
            float silu = value / (1.0f + exp_finite(-value));
            put(job->out, (size_t)row * job->size + i, silu * get(job->inputs, up + i, is_float),
                is_float);
        }
    }
}

static void gate_item(void *context, int item) {
    const GateJob *job = context;
    if (job->is_float)
        gate_rows(job, item, 1);
    else
        gate_rows(job, item, 0);
}

int hga_gated_silu(const void *inputs, void *out, int rows, int size, int is_float) {
    GateJob job = {inputs, out, rows, size, is_float};
    parallel_for(gate_item, &job, items_of(rows));
    return 0;
}

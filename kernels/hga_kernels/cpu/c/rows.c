// Row-wise steps around the linear layers. Inputs and outputs are bf16, the arithmetic float32.
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "bf16.h"
#include "exp2.h"
#include "parallel.h"

enum { ROWS_PER_ITEM = 16 };

typedef struct {
    const uint16_t *inputs, *weight;
    uint16_t *out;
    int rows, size;
    float eps;
} NormJob;

static void norm_item(void *context, int item) {
    const NormJob *job = context;
    int last = (item + 1) * ROWS_PER_ITEM < job->rows ? (item + 1) * ROWS_PER_ITEM : job->rows;
    for (int row = item * ROWS_PER_ITEM; row < last; row++) {
        const uint16_t *in = job->inputs + (size_t)row * job->size;
        uint16_t *out = job->out + (size_t)row * job->size;
        float factor = 1.0f / sqrtf(dot_bf16(in, in, job->size) / (float)job->size + job->eps);
        for (int i = 0; i < job->size; i++)
            out[i] = round_bf16(from_bf16(round_bf16(from_bf16(in[i]) * factor)) *
                                from_bf16(job->weight[i]));
    }
}

int hga_rms_norm(const uint16_t *inputs, const uint16_t *weight, uint16_t *out, int rows, int size,
                 float eps) {
    NormJob job = {inputs, weight, out, rows, size, eps};
    parallel_for(norm_item, &job, (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM);
    return 0;
}

typedef struct {
    const uint16_t *inputs;  // [rows, stride]: the first heads * dim of each row are rotated
    const float *cos, *sin;  // [rows, dim / 2]
    uint16_t *out;           // [rows, heads, dim]
    int rows, heads, dim, stride;
} RotateJob;

static void rotate_item(void *context, int item) {
    const RotateJob *job = context;
    int half = job->dim / 2;
    int last = (item + 1) * ROWS_PER_ITEM < job->rows ? (item + 1) * ROWS_PER_ITEM : job->rows;
    for (int row = item * ROWS_PER_ITEM; row < last; row++) {
        const float *cos = job->cos + (size_t)row * half, *sin = job->sin + (size_t)row * half;
        for (int head = 0; head < job->heads; head++) {
            const uint16_t *in = job->inputs + (size_t)row * job->stride + (size_t)head * job->dim;
            uint16_t *out = job->out + ((size_t)row * job->heads + head) * job->dim;
            for (int i = 0; i < half; i++) {
                float first = from_bf16(in[i]), second = from_bf16(in[half + i]);
                out[i] = round_bf16(first * cos[i] - second * sin[i]);
                out[half + i] = round_bf16(second * cos[i] + first * sin[i]);
            }
        }
    }
}

int hga_rotate(const uint16_t *inputs, const float *cos, const float *sin, uint16_t *out, int rows,
               int heads, int dim, int stride) {
    RotateJob job = {inputs, cos, sin, out, rows, heads, dim, stride};
    parallel_for(rotate_item, &job, (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM);
    return 0;
}

typedef struct {
    const uint16_t *inputs;  // [rows, 2 * size]: gate, then up
    uint16_t *out;           // [rows, size]
    int rows, size;
} GateJob;

static void gate_item(void *context, int item) {
    const GateJob *job = context;
    int last = (item + 1) * ROWS_PER_ITEM < job->rows ? (item + 1) * ROWS_PER_ITEM : job->rows;
    for (int row = item * ROWS_PER_ITEM; row < last; row++) {
        const uint16_t *gate = job->inputs + (size_t)row * 2 * job->size, *up = gate + job->size;
        uint16_t *out = job->out + (size_t)row * job->size;
        for (int i = 0; i < job->size; i++) {
            float value = from_bf16(gate[i]);
            out[i] = round_bf16(value / (1.0f + exp_finite(-value)) * from_bf16(up[i]));
        }
    }
}

int hga_gated_silu(const uint16_t *inputs, uint16_t *out, int rows, int size) {
    GateJob job = {inputs, out, rows, size};
    parallel_for(gate_item, &job, (rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM);
    return 0;
}

// out = inputs @ weight.T for a few rows of bf16. Its speed is that of reading the weight once.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bf16.h"
#include "kernels.h"
#include "parallel.h"

// Weights are prefetched AHEAD outputs before their use.
enum { OUTPUTS_PER_ITEM = 64, AHEAD = 4, LINE = 64 / sizeof(uint16_t) };

typedef struct {
    const uint16_t *inputs, *weight;
    void *out;
    int rows, size_in, size_out, out_is_float;
} LinearJob;

static void store(const LinearJob *job, int row, int output, float value) {
    size_t index = (size_t)row * job->size_out + output;
    if (job->out_is_float)
        ((float *)job->out)[index] = value;
    else
        ((uint16_t *)job->out)[index] = to_bf16(value);
}

static void linear_item(void *context, int item) {
    const LinearJob *job = context;
    int first = item * OUTPUTS_PER_ITEM;
    int last = first + OUTPUTS_PER_ITEM < job->size_out ? first + OUTPUTS_PER_ITEM : job->size_out;
    for (int output = first; output < last; output++) {
        const uint16_t *weight = job->weight + (size_t)output * job->size_in;
        const uint16_t *later = weight + (size_t)AHEAD * job->size_in;
        for (int i = 0; i < job->size_in; i += LINE) __builtin_prefetch(later + i, 0, 2);
        for (int row = 0; row < job->rows; row++)
            store(job, row, output,
                  dot_bf16(job->inputs + (size_t)row * job->size_in, weight, job->size_in));
    }
}

int hga_linear(const uint16_t *inputs, const uint16_t *weight, void *out, int rows, int size_in,
               int size_out, int out_is_float) {
    LinearJob job = {inputs, weight, out, rows, size_in, size_out, out_is_float};
    parallel_for(linear_item, &job, (size_out + OUTPUTS_PER_ITEM - 1) / OUTPUTS_PER_ITEM);
    return 0;
}

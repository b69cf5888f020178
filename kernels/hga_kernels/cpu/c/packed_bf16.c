// Packed weights unpacked to bf16, for products by AMX.
#include <stddef.h>
#include <stdint.h>

#include "amx.h"
#include "integers.h"
#include "parallel.h"

typedef struct {
    const uint8_t *weight;
    uint16_t *out;  // [outputs, columns]
    int type, first, columns;
} WidenJob;

INLINE void widen_tile(Unpack *unpack, int per_scale, const uint8_t *blocks, int size,
                       uint16_t *out) {
    _Alignas(64) Tile tile;
    unpack(blocks, (size + SUB - 1) / SUB, &tile);
    const float *scales = (const float *)tile.scales, *minima = (const float *)tile.minima;
    const uint8_t *values = (const uint8_t *)tile.values;
    for (int i = 0; i < size; i += 16) {
        float scale = scales[i / per_scale], minimum = minima[i / per_scale];
        for (int j = 0; j < 16; j++)
            out[i + j] = round_bf16(scale * (float)values[i + j] - minimum);
    }
}

static void widen_row(void *context, int row) {
    const WidenJob *job = context;
    const uint8_t *from = job->weight + (size_t)(job->first + row) * row_bytes(job->type, job->columns);
    uint16_t *out = job->out + (size_t)row * job->columns;
    for (int first = 0; first < job->columns; first += TILE) {
        int size = least(job->columns - first, TILE);
        switch (job->type) {
#define CASE(name, number, block, bytes, per_scale)                                             \
    case number:                                                                                \
        widen_tile(unpack_##name, per_scale, from + (size_t)first / block * bytes, size,        \
                   out + first);                                                                \
        break;
            PACKED_FORMATS(CASE)
#undef CASE
            default: {
                float numbers[TILE];
                read_floats(from, job->type, first, size, numbers);
                for (int i = 0; i < size; i++) out[first + i] = round_bf16(numbers[i]);
            }
        }
    }
}

// Unpacks some rows of a weight to bf16.
int hga_packed_to_bf16(const uint8_t *weight, uint16_t *out, int type, int first, int count,
                       int columns) {
    WidenJob job = {weight, out, type, first, columns};
    parallel_for(widen_row, &job, count);
    return 0;
}

int hga_has_amx(void) { return allow_amx(); }

// The largest of many values.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

// Writes the indices of the k largest of `count` values in ascending order; of equal values the
// first ones; -1 where there are no more, or where values are NaN. No value may be negative.
// `scratch` has room for all of them.
void top_k(const float *values, int count, int k, int32_t *indices, void *scratch);

#pragma GCC visibility pop

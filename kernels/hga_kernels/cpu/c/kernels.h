// Kernels that Python calls and that a decode step is composed of. All return whether memory was
// short.
#pragma once

#include <stdint.h>

// A weight, or one of several whose rows follow each other; of experts, one below the other.
typedef struct {
    const uint8_t *data;
    int32_t type;  // number of the format in GGUF files
    int32_t outputs;
} RowPart;

int hga_linear(const uint16_t *inputs, const uint16_t *weight, void *out, int rows, int size_in,
               int size_out, int out_is_float);

int hga_packed_rows(const void *inputs, const float *norm, const RowPart *parts, const void *residual,
                    void *out, int rows, int size, int number, int columns, int in_is_bf16,
                    int is_gated, int out_is_bf16, float eps);

int hga_rms_norm(const void *inputs, const void *weight, void *out, int rows, int size,
                 int is_float, float eps);

int hga_gated_silu(const void *inputs, void *out, int rows, int size, int is_float);

int hga_split_heads(const void *inputs, const float *bias, const void *q_norm, const void *k_norm,
                    const float *cos, const float *sin, const float *key_shift, void *queries,
                    void *keys, void *values, int rows, int query_heads, int kv_heads, int dim,
                    int is_float, int norms_are_float, float eps);

int hga_select_groups(const float *queries, const uint16_t *summaries, const uint8_t *codes,
                      const uint16_t *scales, const int32_t *end_chunks, const float *window_lse,
                      int32_t *groups, float *importance, int32_t *counts, int blocks,
                      int kv_heads, int rows, int dim, int capacity_chunks, int first_chunk,
                      int last_chunk, int budget, int columns, int per_chunk, int layer,
                      float expected);

int hga_attend_pages(const uint16_t *queries, const int32_t *positions, const int32_t *groups,
                     const int32_t *slots, const uint16_t *pool, const float *importance,
                     uint16_t *out, float *mass, float *attention_lse, int blocks, int rows,
                     int kv_heads, int heads_per_kv, int pages, int dim, float scale);

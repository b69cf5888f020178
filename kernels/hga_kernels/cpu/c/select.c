// Runs the steps of a selection on all threads.
#include "select.h"

#include <stdlib.h>

#include "kernels.h"
#include "parallel.h"

// Below this many pairs, the candidates of each are scored in parts.
enum { FEW_PAIRS = 16, PARTS = 4 };

// In floats: whole cache lines.
static size_t in_lines(size_t floats) { return (floats + LANES - 1) / LANES * LANES; }

static size_t size_of_packed(const SelectJob *job) {
    return in_lines((size_t)row_pairs(job->rows) * job->span * job->per_chunk);
}

static size_t size_of_odds(const SelectJob *job) {
    return in_lines((size_t)job->span * job->per_chunk);
}

static size_t size_of_weights(const SelectJob *job) {
    return size_of_packed(job) + size_of_odds(job) +
           in_lines(2 * (size_t)job->rows * job->parts);
}

static Weights weights_of(const SelectJob *job, int number) {
    float *packed = job->weights + size_of_weights(job) * number;
    float *odds = packed + size_of_packed(job);
    float *bases = odds + size_of_odds(job);
    return (Weights){.packed = (uint32_t *)packed, .bases = bases,
                     .totals = bases + (size_t)job->rows * job->parts, .odds = odds};
}

static Part part_of(const SelectJob *job, int pair, int number) {
    int64_t count = chunks_of(job, pair);
    int first = (int)(count * number / job->parts);
    return (Part){number, first, (int)(count * (number + 1) / job->parts)};
}

static void quantise_item(void *context, int pair) { quantise_queries(context, pair); }

static void score_item(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts;
    score_part(job, weights_of(job, pair), pair, part_of(job, pair, item % job->parts));
}

static void odds_item(void *context, int item) {
    SelectJob *job = context;
    int pair = item / job->parts;
    find_odds(job, weights_of(job, pair), pair, part_of(job, pair, item % job->parts));
}

static void draw_item(void *context, int pair) {
    draw_groups(context, weights_of(context, pair), pair);
}

// All steps for one pair, whose weights then stay in the cache.
static void select_item(void *context, int pair) {
    SelectJob *job = context;
    int thread = 0;  // one of as many as run at a time
    while (atomic_flag_test_and_set(&job->in_use[thread]))
        thread = (thread + 1) % threads_running();
    Weights weights = weights_of(job, thread);
    Part all = part_of(job, pair, 0);
    score_part(job, weights, pair, all);
    find_odds(job, weights, pair, all);
    draw_groups(job, weights, pair);
    atomic_flag_clear(&job->in_use[thread]);
}

int hga_select_groups(const float *queries, const uint16_t *summaries, const uint8_t *codes,
                      const uint16_t *scales, const int32_t *end_chunks, const float *window_lse,
                      int32_t *groups, float *importance, int32_t *counts, int blocks, int kv_heads, int rows,
                      int dim, int capacity_chunks, int first_chunk, int last_chunk, int budget,
                      int columns, int per_chunk, int layer, float expected) {
    int pairs = blocks * kv_heads, span = last_chunk - first_chunk;
    SelectJob job = {.queries = queries, .summaries = summaries, .codes = codes, .scales = scales,
                     .end_chunks = end_chunks, .window_lse = window_lse, .groups = groups,
                     .importance = importance, .counts = counts, .blocks = blocks, .kv_heads = kv_heads,
                     .rows = rows, .dim = dim, .capacity_chunks = capacity_chunks,
                     .budget = budget, .expected = expected, .columns = columns, .layer = layer, .first_chunk = first_chunk, .span = span,
                     .per_chunk = per_chunk, .parts = pairs < FEW_PAIRS ? PARTS : 1,
                     .has_amx = rows >= AMX_ROWS && (dim == 64 || dim == 128) && allow_amx()};
    size_t cells = (size_t)pairs * rows;
    int at_a_time = job.parts > 1 ? pairs : threads_running();
    job.centre_scores = malloc(cells * span * sizeof *job.centre_scores);
    job.int8_queries = calloc((size_t)pairs * padded_rows(&job), dim);
    job.steps = malloc(cells * sizeof *job.steps);
    job.offsets = malloc(cells * sizeof *job.offsets);
    job.weights = aligned_alloc(64, at_a_time * size_of_weights(&job) * sizeof *job.weights);
    job.in_use = malloc(at_a_time * sizeof *job.in_use);
    if (!job.centre_scores || !job.int8_queries || !job.steps || !job.offsets || !job.weights ||
        !job.in_use)
        job.failed = 1;
    else {
        for (int number = 0; number < at_a_time; number++) atomic_flag_clear(&job.in_use[number]);
        parallel_for(quantise_item, &job, pairs);
        if (job.parts == 1)
            parallel_for(select_item, &job, pairs);
        else {
            parallel_for(score_item, &job, pairs * job.parts);
            if (!job.failed) parallel_for(odds_item, &job, pairs * job.parts);
            if (!job.failed) parallel_for(draw_item, &job, pairs);
        }
    }
    free(job.centre_scores);
    free(job.int8_queries);
    free(job.steps);
    free(job.offsets);
    free(job.weights);
    free(job.in_use);
    return job.failed;
}

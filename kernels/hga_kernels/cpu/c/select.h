// Selection of the groups that a block of queries attends to.
//
// It is done for every pair of KV head and block, in two steps. select_scores.c estimates the
// attention mass of every group from the 2-bit token codes; select_draw.c draws groups by their
// share of it. select.c allocates memory and deals the work to threads.
//
// A group has 2 or 16 tokens. Its tokens t and t + half a group count once, with the larger score.
#pragma once

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "amx.h"
#include "bf16.h"
#include "chunk.h"

// Groups per chunk, by the tokens that a group has.
enum { GROUPS_OF_2 = CHUNK / 2, GROUPS_OF_16 = CHUNK / 16 };
// As in reference/selection.py.
enum { MAX_IMPORTANCE = 1024, STRATA = 16 };

// Scores are in log2 units, so that a power of two gives the weight.
static const float LOG2_E = 1.44269504f;

typedef struct {
    const float *queries;       // [kv_heads, blocks, rows, dim], times the softmax scale
    const uint16_t *summaries;  // [kv_heads, capacity_chunks, dim] bf16
    const uint8_t *codes;       // [kv_heads, capacity_chunks, SLABS, dim * 4]
    const uint16_t *scales;     // [kv_heads, capacity_chunks, CHUNK] bf16
    const int32_t *end_chunks;  // [blocks]
    const float *window_lse;    // [kv_heads, blocks, rows], or NULL
    int32_t *groups;            // [blocks, kv_heads, columns], -1 for none
    float *importance;          // [blocks, kv_heads, columns]: how many groups each stands for
    int32_t *counts;            // [blocks, kv_heads]: how many groups were drawn
    int blocks, kv_heads, rows, dim, capacity_chunks, layer;
    int budget, columns;    // groups of a pair: at most, and that there is memory for
    float expected;         // groups drawn on average where attention is spread
    int first_chunk, span;  // the first candidate, and the most that a block has
    int per_chunk;          // groups per chunk: GROUPS_OF_2 or GROUPS_OF_16
    int parts;              // work items that the candidates of a pair are scored in
    int has_amx;
    int failed;  // out of memory
    // Scratch memory. A pair is head * blocks + block.
    float *centre_scores;  // [pairs, rows, span]: query times summary
    int8_t *int8_queries;  // [pairs, padded rows, dim], in the Hadamard domain
    float *steps;          // [pairs, rows]: what products are worth as scores
    int32_t *offsets;      // [pairs, rows]: where sums of products with twice the codes begin
    float *weights;        // [pairs, size of Weights], or [threads, ...] if there is one part
    atomic_flag *in_use;   // [threads]: whose weights are in use, if there is one part
} SelectJob;

// The groups' weights of one pair, as its parts are scored.
typedef struct {
    uint32_t *packed;   // [span, half the rows, per_chunk]: bf16 weights of two rows each,
    float *bases;       // [parts, rows]: relative to this score
    float *totals;      // [parts, rows]: sums of those weights
    float *odds;        // [span, per_chunk], the chunks of each stratum side by side
} Weights;

// The candidates of one part of a pair, counted from the first of all.
typedef struct {
    int number, first, last;
} Part;

static inline int row_pairs(int rows) { return (rows + 1) / 2; }

// Candidates of a pair.
static inline int chunks_of(const SelectJob *job, int pair) {
    int count = job->end_chunks[pair % job->blocks] - job->first_chunk;
    return count < 0 ? 0 : count;
}

// Rows of int8 queries: whole tiles where AMX multiplies them.
static inline int padded_rows(const SelectJob *job) {
    return job->has_amx ? (job->rows + AMX_ROWS - 1) / AMX_ROWS * AMX_ROWS : job->rows;
}

// Packed weights of a candidate's groups for a row and the other row of its words.
static inline uint32_t *packed_at(const SelectJob *job, const Weights *weights, int candidate,
                                  int row) {
    size_t words = (size_t)candidate * row_pairs(job->rows) + row / 2;
    return weights->packed + words * job->per_chunk;
}

// The weight of a row in a word. Even rows have the low half.
static inline float weight_in(uint32_t word, int row) {
    return from_bf16((uint16_t)(row % 2 ? word >> 16 : word));
}

#pragma GCC visibility push(hidden)

// Rotates the queries of a pair into the Hadamard domain and rounds them to int8.
void quantise_queries(SelectJob *job, int pair);

// Scores the candidates of a part: its centre scores and the weights of its groups.
void score_part(SelectJob *job, Weights weights, int pair, Part part);

// Finds the odds of a part's groups, when all parts of the pair are scored.
void find_odds(SelectJob *job, Weights weights, int pair, Part part);

// Draws the groups of a pair.
void draw_groups(SelectJob *job, Weights weights, int pair);

#pragma GCC visibility pop

// Draws groups by priority sampling (Duffield, Lund and Thorup, 2007), from each stratum by itself.
//
// The definition is take_groups in reference/selection.py: a group's priority is its mass over its
// draw number, and the groups of the highest priorities are taken.
#include <stdlib.h>
#include <string.h>

#include "exp2.h"
#include "select.h"
#include "top_k.h"

// As in reference/selection.py.
enum { PERIOD = 1 << 24, GROUP_STEP = 0x9E3779, HEAD_STEP = 0xC13FA9 };

// The chunks of a pair whose number has one remainder by STRATA.
typedef struct {
    int chunk;         // the first candidate
    int first, count;  // its groups among the priorities
    int start, room;   // its share of the budget
} Stratum;

// Groups drawn for a pair: the budget, or all there are.
static int filled_of(const SelectJob *job, int pair) {
    int present = chunks_of(job, pair) * job->per_chunk;
    return present < job->budget ? present : job->budget;
}

// Chunks before `end` that are in strata before `stratum`.
static int in_strata_before(int stratum, int end) {
    int rest = end % STRATA;
    return end / STRATA * stratum + (rest < stratum ? rest : stratum);
}

static Stratum stratum_of(const SelectJob *job, int pair, int number) {
    int first = job->first_chunk, chunks = chunks_of(job, pair), end = first + chunks;
    int before = in_strata_before(number, end) - in_strata_before(number, first);
    int after = in_strata_before(number + 1, end) - in_strata_before(number + 1, first);
    int64_t filled = filled_of(job, pair);
    int start = chunks ? (int)(filled * before / chunks) : 0;
    return (Stratum){.chunk = first + (number + STRATA - first % STRATA) % STRATA,
                     .first = before * job->per_chunk,
                     .count = (after - before) * job->per_chunk,
                     .start = start,
                     .room = chunks ? (int)(filled * after / chunks) - start : 0};
}

// The draw number of a group, from 1 to MAX_IMPORTANCE.
static inline float draw_number(const SelectJob *job, int head, int group) {
    uint32_t steps = (uint32_t)group * GROUP_STEP +
                     (uint32_t)(job->layer * job->kv_heads + head) * HEAD_STEP;
    float number = (float)(int32_t)(steps & (PERIOD - 1)) * ((float)MAX_IMPORTANCE / PERIOD);
    return number > 1.0f ? number : 1.0f;
}

// Priorities of a chunk's groups: their masses, added up over the rows, over their draw numbers.
// There is a share for each half of a word. `groups` is a constant where this is called.
static inline __attribute__((always_inline)) void priorities_of(
    const SelectJob *job, int head, int chunk, const uint32_t *packed, const float *shares,
    float *priorities, int groups) {
    float mass[GROUPS_OF_2] = {0};
    for (int row = 0; row < job->rows; row += 2, packed += groups)
        for (int g = 0; g < groups; g++)
            mass[g] +=
                weight_in(packed[g], 0) * shares[row] + weight_in(packed[g], 1) * shares[row + 1];
    for (int g = 0; g < groups; g++)
        priorities[g] = mass[g] / draw_number(job, head, chunk * groups + g);
}

// The factor that turns the weights of a row in one part into shares of all attention mass.
static float share_of(const SelectJob *job, Weights weights, int pair, int row, int part) {
    int rows = job->rows;
    float window = 0, total = 0, top = -INFINITY;
    for (int p = 0; p < job->parts; p++) {
        float base = weights.bases[p * rows + row];
        top = base > top ? base : top;
    }
    if (job->window_lse) {
        window = job->window_lse[(size_t)pair * rows + row] * LOG2_E;
        top = window > top ? window : top;
        window = exp2_1(window - top);
    }
    for (int p = 0; p < job->parts; p++)
        total += weights.totals[p * rows + row] * exp2_1(weights.bases[p * rows + row] - top);
    return exp2_1(weights.bases[part * rows + row] - top) / (total + window);
}

void find_priorities(SelectJob *job, Weights weights, int pair, Part part) {
    if (part.first == part.last) return;
    int head = pair / job->blocks, rows = job->rows, per_chunk = job->per_chunk;
    float *shares = calloc(2 * row_pairs(rows), sizeof *shares);
    if (!shares) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < rows; row++)
        shares[row] = share_of(job, weights, pair, row, part.number);
    Stratum strata[STRATA];
    for (int number = 0; number < STRATA; number++) strata[number] = stratum_of(job, pair, number);
    for (int candidate = part.first; candidate < part.last; candidate++) {
        int chunk = job->first_chunk + candidate;
        Stratum own = strata[chunk % STRATA];
        const uint32_t *packed = packed_at(job, &weights, candidate, 0);
        float *priorities =
            weights.priorities + own.first + (chunk - own.chunk) / STRATA * per_chunk;
        if (per_chunk == GROUPS_OF_2)
            priorities_of(job, head, chunk, packed, shares, priorities, GROUPS_OF_2);
        else
            priorities_of(job, head, chunk, packed, shares, priorities, GROUPS_OF_16);
    }
    free(shares);
}

// Writes the numbers and importance weights of the groups drawn from a stratum. `per_chunk` is a
// constant where this is called.
static inline __attribute__((always_inline)) void write_groups(
    const SelectJob *job, int head, Stratum own, const float *priorities, const int32_t *drawn,
    float threshold, int32_t *groups, float *importance, int per_chunk) {
    for (int i = 0; i < own.room; i++) {
        int index = drawn[i] >= 0 ? drawn[i] : 0;
        int group = (own.chunk + index / per_chunk * STRATA) * per_chunk + index % per_chunk;
        float times = threshold / (priorities[index] * draw_number(job, head, group));
        times = times > 1.0f ? times : 1.0f;  // NaN too, where both are 0
        times = times < MAX_IMPORTANCE ? times : MAX_IMPORTANCE;
        groups[i] = drawn[i] >= 0 ? group : -1;
        importance[i] = drawn[i] >= 0 ? times : 1.0f;
    }
}

void draw_groups(SelectJob *job, Weights weights, int pair, int stratum) {
    int head = pair / job->blocks, block = pair % job->blocks;
    Stratum own = stratum_of(job, pair, stratum);
    size_t start = ((size_t)block * job->kv_heads + head) * job->budget;
    int32_t *groups = job->groups + start + own.start;
    float *importance = job->importance + start + own.start;
    const float *priorities = weights.priorities + own.first;
    int32_t *drawn = malloc(sizeof(int32_t) * (own.room + 1));
    if (!drawn) {
        job->failed = 1;
        return;
    }
    // One more than there is room for: the least of their priorities is the threshold.
    top_k(priorities, own.count, own.room + 1, drawn, (float *)weights.packed + own.first);
    float threshold = 0;
    if (drawn[own.room] >= 0) {
        int left_out = own.room;
        for (int i = own.room - 1; i >= 0; i--)
            if (priorities[drawn[i]] < priorities[drawn[left_out]]) left_out = i;
        threshold = priorities[drawn[left_out]] * MAX_IMPORTANCE;
        memmove(drawn + left_out, drawn + left_out + 1, sizeof(int32_t) * (own.room - left_out));
    }
    if (job->per_chunk == GROUPS_OF_2)
        write_groups(job, head, own, priorities, drawn, threshold, groups, importance,
                     GROUPS_OF_2);
    else
        write_groups(job, head, own, priorities, drawn, threshold, groups, importance,
                     GROUPS_OF_16);
    free(drawn);
    for (int i = stratum ? job->budget : filled_of(job, pair); i < job->budget; i++) {
        job->groups[start + i] = -1;
        job->importance[start + i] = 1;
    }
}

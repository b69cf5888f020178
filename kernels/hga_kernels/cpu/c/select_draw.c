// Draws groups with odds in proportion to their share of the attention, from each stratum by itself.
//
// The definition is draw_groups in reference/selection.py: a group is drawn if its odds, which are
// its share times the groups expected, are no less than its draw number.
#include <stdlib.h>

#include "exp2.h"
#include "select.h"

// As in reference/selection.py.
enum { PERIOD = 1 << 24, GROUP_STEP = 0x9E3779, HEAD_STEP = 0xC13FA9 };

// The chunks of a pair whose number has one remainder by STRATA.
typedef struct {
    int chunk;         // the first candidate
    int first, count;  // its groups among the odds
    int room;          // its share of the budget
} Stratum;

// Groups that a pair has room for: the budget, or all there are.
static int room_of(const SelectJob *job, int pair) {
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
    int64_t room = room_of(job, pair);
    return (Stratum){.chunk = first + (number + STRATA - first % STRATA) % STRATA,
                     .first = before * job->per_chunk,
                     .count = (after - before) * job->per_chunk,
                     .room = chunks ? (int)(room * after / chunks - room * before / chunks) : 0};
}

// The draw number of a group, from 1 / MAX_IMPORTANCE to 1.
static inline float draw_number(const SelectJob *job, int head, int group) {
    uint32_t steps = (uint32_t)group * GROUP_STEP +
                     (uint32_t)(job->layer * job->kv_heads + head) * HEAD_STEP;
    float number = (float)(int32_t)(steps & (PERIOD - 1)) * (1.0f / PERIOD);
    return number > 1.0f / MAX_IMPORTANCE ? number : 1.0f / MAX_IMPORTANCE;
}

// Odds of a chunk's groups: their weights in each row times what a weight of the row is worth.
// There is a factor for each half of a word. `groups` is a constant where this is called.
static inline __attribute__((always_inline)) void odds_of(const SelectJob *job,
                                                          const uint32_t *packed,
                                                          const float *worth, float *odds,
                                                          int groups) {
    float sum[GROUPS_OF_2] = {0};
    for (int row = 0; row < job->rows; row += 2, packed += groups)
        for (int g = 0; g < groups; g++)
            sum[g] +=
                weight_in(packed[g], 0) * worth[row] + weight_in(packed[g], 1) * worth[row + 1];
    for (int g = 0; g < groups; g++) odds[g] = sum[g];
}

// The factor that turns the weights of a row in one part into shares of the row's attention.
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

void find_odds(SelectJob *job, Weights weights, int pair, Part part) {
    if (part.first == part.last) return;
    int rows = job->rows, per_chunk = job->per_chunk;
    float *worth = calloc(2 * row_pairs(rows), sizeof *worth);
    if (!worth) {
        job->failed = 1;
        return;
    }
    for (int row = 0; row < rows; row++)
        worth[row] =
            share_of(job, weights, pair, row, part.number) * (job->expected / (float)rows);
    Stratum strata[STRATA];
    for (int number = 0; number < STRATA; number++) strata[number] = stratum_of(job, pair, number);
    for (int candidate = part.first; candidate < part.last; candidate++) {
        int chunk = job->first_chunk + candidate;
        Stratum own = strata[chunk % STRATA];
        const uint32_t *packed = packed_at(job, &weights, candidate, 0);
        float *odds = weights.odds + own.first + (chunk - own.chunk) / STRATA * per_chunk;
        if (per_chunk == GROUPS_OF_2)
            odds_of(job, packed, worth, odds, GROUPS_OF_2);
        else
            odds_of(job, packed, worth, odds, GROUPS_OF_16);
    }
    free(worth);
}

// Writes the numbers and importance weights of the groups drawn from a stratum, as many as there is
// room for, and returns how many were drawn. `per_chunk` is a constant where this is called.
static inline __attribute__((always_inline)) int draw_with(const SelectJob *job, int head,
                                                           Stratum own, const float *odds,
                                                           float factor, int32_t *groups,
                                                           float *importance, int per_chunk) {
    int drawn = 0;
    for (int place = 0; place < own.count; place += per_chunk) {
        int first = (own.chunk + place / per_chunk * STRATA) * per_chunk;
        uint32_t is_drawn = 0;
        for (int g = 0; g < per_chunk; g++)
            is_drawn |= (uint32_t)(odds[place + g] * factor >= draw_number(job, head, first + g))
                        << g;
        for (; is_drawn; is_drawn &= is_drawn - 1, drawn++) {
            int g = __builtin_ctz(is_drawn);
            float times = 1.0f / (odds[place + g] * factor);
            if (drawn >= own.room) continue;
            groups[drawn] = first + g;
            importance[drawn] = times > 1.0f ? times : 1.0f;
        }
    }
    return drawn;
}

// As many groups as there is room for: where too many are drawn, their odds are halved.
static int draw_stratum(const SelectJob *job, int head, Stratum own, const float *odds,
                        int32_t *groups, float *importance) {
    for (float factor = 1;; factor /= 2) {
        int drawn = job->per_chunk == GROUPS_OF_2
                        ? draw_with(job, head, own, odds, factor, groups, importance, GROUPS_OF_2)
                        : draw_with(job, head, own, odds, factor, groups, importance, GROUPS_OF_16);
        if (drawn <= own.room) return drawn;
    }
}

void draw_groups(SelectJob *job, Weights weights, int pair) {
    int head = pair / job->blocks, block = pair % job->blocks, per_chunk = job->per_chunk;
    size_t place = (size_t)block * job->kv_heads + head;
    int32_t *groups = job->groups + place * job->columns;
    float *importance = job->importance + place * job->columns;
    int present = chunks_of(job, pair) * per_chunk, drawn = 0;
    if (2 * present <= job->budget)
        for (; drawn < present; drawn++) {
            groups[drawn] = job->first_chunk * per_chunk + drawn;
            importance[drawn] = 1;
        }
    else
        for (int number = 0; number < STRATA; number++) {
            Stratum own = stratum_of(job, pair, number);
            drawn += draw_stratum(job, head, own, weights.odds + own.first, groups + drawn,
                                  importance + drawn);
        }
    job->counts[place] = drawn;
    for (; drawn < job->columns; drawn++) {
        groups[drawn] = -1;
        importance[drawn] = 1;
    }
}

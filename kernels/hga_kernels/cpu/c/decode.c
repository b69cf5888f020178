// One token through one layer, in one call: the kernels of the other files, one after the other.
//
// A token takes a few hundred kernels. Called one by one from Python, with torch in between, they
// would take half as long again.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "chunk.h"
#include "kernels.h"

enum { GROUP = 2, PER_CHUNK = CHUNK / GROUP };

// A linear layer's weight.
typedef struct {
    const void *data;  // RowPart[parts], or [outputs, inputs] bf16 if there are none
    int32_t parts, outputs, inputs;
} Matrix;

typedef struct {
    const void *attention_norm, *mlp_norm;  // [hidden], float32 beside packed weights, else bf16
    Matrix qkv, output, gate_up, down;      // gate_up.data is NULL if the MLP is left out
    const float *bias, *key_shift;          // as hga_split_heads takes them
    const void *q_norm, *k_norm;
    uint16_t *pool;             // [kv_heads, max_groups, 2, GROUP, dim] bf16
    const uint16_t *summaries;  // the routing index, as hga_select_groups takes it
    const uint8_t *codes;
    const uint16_t *scales;
} Layer;

typedef struct {
    int32_t hidden, query_heads, kv_heads, dim;
    int32_t is_float, norms_are_float;  // hidden states and norms of heads: float32, or bf16
    int32_t max_groups, capacity_chunks;
    int32_t sink_chunks, budget;  // groups that may be chosen at most
    float expected;               // groups drawn on average where attention is spread
    float eps;
} Model;

// What a step counts of its attention. Groups from `first` to before `end` are reported by layer.
typedef struct {
    double *mass;       // [groups], over all layers
    float *layer_mass;  // [groups], of this layer
    int64_t chosen;     // groups, over layers and KV heads
    int32_t first, end;
} Counted;

// What a layer computes on its way. All of it is in one piece of memory.
typedef struct {
    float *product;        // [the most outputs of a weight], or as many bf16 numbers
    float *heads;          // [query_heads + 2 * kv_heads, dim], or bf16
    float *scaled;         // [query_heads, dim]
    float *lse;            // [query_heads]
    float *importance;     // [kv_heads, pages]
    float *mass;           // [kv_heads, pages]
    float *chosen_weights; // [kv_heads, budget]
    int32_t *chosen;       // [kv_heads, budget]
    int32_t *counts;       // [kv_heads]
    int32_t *groups;       // [kv_heads, pages]
    int32_t *slots;        // [kv_heads, pages]
    uint16_t *queries;     // [query_heads, dim]
    uint16_t *attended;    // [query_heads, dim]
    uint16_t *normed;      // [the most inputs of a weight]
} Scratch;

static int larger(int a, int b) { return a > b ? a : b; }

static int sinks_of(const Model *model) { return model->sink_chunks * PER_CHUNK; }

static int most_pages(const Model *model) { return sinks_of(model) + model->budget + PER_CHUNK; }

static void *allocate(const Model *model, const Layer *layer, Scratch *scratch) {
    size_t kv_heads = model->kv_heads, pages = kv_heads * most_pages(model);
    size_t queries = (size_t)model->query_heads * model->dim, chosen = kv_heads * model->budget;
    size_t all_heads = queries + 2 * kv_heads * model->dim;
    int outputs = larger(larger(layer->qkv.outputs, layer->gate_up.outputs), model->hidden);
    int inputs = larger(larger(layer->output.inputs, layer->down.inputs), model->hidden);
    size_t floats = outputs + all_heads + queries + model->query_heads + 2 * pages + chosen;
    size_t integers = chosen + kv_heads + 2 * pages, shorts = 2 * queries + inputs;
    char *memory = malloc(4 * (floats + integers) + 2 * shorts);
    if (!memory) return NULL;
    Scratch *at = scratch;
    at->product = (float *)memory;
    at->heads = at->product + outputs;
    at->scaled = at->heads + all_heads;
    at->lse = at->scaled + queries;
    at->importance = at->lse + model->query_heads;
    at->mass = at->importance + pages;
    at->chosen_weights = at->mass + pages;
    at->chosen = (int32_t *)(at->chosen_weights + chosen);
    at->counts = at->chosen + chosen;
    at->groups = at->counts + kv_heads;
    at->slots = at->groups + pages;
    at->queries = (uint16_t *)(at->slots + pages);
    at->attended = at->queries + queries;
    at->normed = at->attended + queries;
    return memory;
}

// out = inputs @ matrix.T, or out += that. RMS norm is taken of the inputs if there is a norm, or they
// are twice as many and gated. Packed weights take inputs in bf16 even if hidden states are float32.
static int multiply(const Model *model, const Matrix *matrix, const void *inputs, int in_is_bf16,
                    const void *norm, int is_gated, int is_added, void *out, Scratch *scratch) {
    if (matrix->parts)
        return hga_packed_rows(inputs, norm, matrix->data, is_added ? out : NULL, out, 1,
                               matrix->inputs, matrix->parts, matrix->outputs, in_is_bf16, is_gated,
                               !model->is_float, model->eps);
    int failed = 0, size = matrix->inputs;
    uint16_t *normed = scratch->normed, *to = out;
    uint16_t *product = is_added ? (uint16_t *)scratch->product : to;
    if (norm) failed |= hga_rms_norm(inputs, norm, normed, 1, size, 0, model->eps);
    if (is_gated) failed |= hga_gated_silu(inputs, normed, 1, size, 0);
    failed |= hga_linear(norm || is_gated ? normed : inputs, matrix->data, product, 1, size,
                         matrix->outputs, 0);
    for (int i = 0; is_added && i < matrix->outputs; i++)
        to[i] = to_bf16(from_bf16(to[i]) + from_bf16(product[i]));
    return failed;
}

// Copies numbers of hidden states' type, rounded to bf16.
static void round_all(const void *from, int is_float, int count, uint16_t *to) {
    if (is_float)
        for (int i = 0; i < count; i++) to[i] = to_bf16(((const float *)from)[i]);
    else
        memcpy(to, from, count * sizeof *to);
}

// Computes the queries, and writes the token's keys and values to its pages.
static int project(const Model *model, const Layer *layer, const void *hidden, const float *cos,
                   const float *sin, int position, Scratch *scratch) {
    int dim = model->dim, size = model->is_float ? 4 : 2;
    char *queries = (char *)scratch->heads;
    char *keys = queries + (size_t)model->query_heads * dim * size;
    char *values = keys + (size_t)model->kv_heads * dim * size;
    int failed = multiply(model, &layer->qkv, hidden, !model->is_float, layer->attention_norm, 0,
                          0, scratch->product, scratch);
    failed |= hga_split_heads(scratch->product, layer->bias, layer->q_norm, layer->k_norm, cos, sin,
                              layer->key_shift, queries, keys, values, 1, model->query_heads,
                              model->kv_heads, dim, model->is_float, model->norms_are_float,
                              model->eps);
    round_all(queries, model->is_float, model->query_heads * dim, scratch->queries);
    for (int head = 0; head < model->kv_heads; head++) {
        size_t page = (size_t)head * model->max_groups + position / GROUP, from = head * dim * size;
        uint16_t *to = layer->pool + page * 2 * GROUP * dim + position % GROUP * dim;
        round_all(keys + from, model->is_float, dim, to);
        round_all(values + from, model->is_float, dim, to + GROUP * dim);
    }
    return failed;
}

// Lists the pages of the window and `most` chosen groups of each KV head; returns their number. -1
// stands for none.
static int list_pages(const Model *model, int position, int columns, int most, Scratch *scratch) {
    int sinks = sinks_of(model), pages = sinks + most + PER_CHUNK;
    int open = position / CHUNK * PER_CHUNK, last = position / GROUP;
    for (int head = 0; head < model->kv_heads; head++) {
        int32_t *groups = scratch->groups + (size_t)head * pages;
        int32_t *slots = scratch->slots + (size_t)head * pages;
        float *importance = scratch->importance + (size_t)head * pages;
        for (int i = 0; i < pages; i++) importance[i] = 1;
        for (int i = 0; i < sinks; i++) groups[i] = i <= last ? i : -1;
        memcpy(groups + sinks, scratch->chosen + (size_t)head * columns, most * sizeof *groups);
        memcpy(importance + sinks, scratch->chosen_weights + (size_t)head * columns,
               most * sizeof *importance);
        for (int i = 0; i < PER_CHUNK; i++) {
            int group = open + i;
            groups[sinks + most + i] = group >= sinks && group <= last ? group : -1;
        }
        for (int i = 0; i < pages; i++)
            slots[i] = groups[i] < 0 ? -1 : head * model->max_groups + groups[i];
    }
    return pages;
}

// Chooses groups; returns the most that a KV head has, and how many there is room for in `columns`.
static int choose(const Model *model, const Layer *layer, int number, int position,
                  Scratch *scratch, int *columns, int *failed) {
    int chunk = position / CHUNK, first = model->sink_chunks, most = 0;
    int candidates = larger(chunk - first, 0) * PER_CHUNK, dim = model->dim;
    *columns = candidates < model->budget ? candidates : model->budget;
    if (!*columns) return 0;
    int heads_per_kv = model->query_heads / model->kv_heads;
    float scale = (float)(1 / sqrt(dim));
    int pages = list_pages(model, position, 0, 0, scratch);
    *failed |= hga_attend_pages(scratch->queries, &position, scratch->groups, scratch->slots,
                                layer->pool, NULL, NULL, NULL, scratch->lse, 1, 1, model->kv_heads,
                                heads_per_kv, pages, dim, (float)(1 / sqrt(dim) / log(2)));
    for (int i = 0; i < model->query_heads * dim; i++)
        scratch->scaled[i] = from_bf16(scratch->queries[i]) * scale;
    *failed |= hga_select_groups(scratch->scaled, layer->summaries, layer->codes, layer->scales,
                                 &chunk, scratch->lse, scratch->chosen, scratch->chosen_weights,
                                 scratch->counts, 1, model->kv_heads, heads_per_kv, dim,
                                 model->capacity_chunks, first, chunk, model->budget, *columns,
                                 PER_CHUNK, number, model->expected);
    for (int head = 0; head < model->kv_heads; head++) most = larger(most, scratch->counts[head]);
    return most;
}

static void count(const Model *model, const Scratch *scratch, int most, int pages,
                  Counted *counted) {
    for (int i = 0; i < model->kv_heads * pages; i++) {
        int group = scratch->groups[i];
        if (group < 0) continue;
        counted->mass[group] += scratch->mass[i];
        if (group >= counted->first && group < counted->end)
            counted->layer_mass[group] += scratch->mass[i];
    }
    for (int head = 0; most && head < model->kv_heads; head++)
        counted->chosen += scratch->counts[head];
}

// Takes a token at `position` through a layer, in place. Writes its keys and values to its pages.
int hga_decode_layer(const Model *model, const Layer *layer, void *hidden, const float *cos,
                     const float *sin, Counted *counted, int number, int position) {
    Scratch scratch;
    void *memory = allocate(model, layer, &scratch);
    if (!memory) return 1;
    int columns, dim = model->dim;
    int failed = project(model, layer, hidden, cos, sin, position, &scratch);
    int most = choose(model, layer, number, position, &scratch, &columns, &failed);
    int pages = list_pages(model, position, columns, most, &scratch);
    failed |= hga_attend_pages(scratch.queries, &position, scratch.groups, scratch.slots,
                               layer->pool, scratch.importance, scratch.attended, scratch.mass,
                               NULL, 1, 1, model->kv_heads, model->query_heads / model->kv_heads,
                               pages, dim, (float)(1 / sqrt(dim) / log(2)));
    count(model, &scratch, most, pages, counted);
    failed |= multiply(model, &layer->output, scratch.attended, 1, NULL, 0, 1, hidden, &scratch);
    if (layer->gate_up.data) {
        failed |= multiply(model, &layer->gate_up, hidden, !model->is_float, layer->mlp_norm, 0,
                           0, scratch.product, &scratch);
        failed |= multiply(model, &layer->down, scratch.product, !model->is_float, NULL, 1, 1,
                           hidden, &scratch);
    }
    free(memory);
    return failed;
}

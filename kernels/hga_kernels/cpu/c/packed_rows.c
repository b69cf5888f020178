// Products of a few float32 rows and packed weights. Their speed is that of reading the weights.
//
// Rows are quantised to 16 bits per 32 values, which keeps a model's choices; 8 bits would not.
// A packed weight is unpacked to bytes in registers and multiplied with all rows.
#include <math.h>
#include <stdlib.h>

#include "bf16.h"
#include "exp2.h"
#include "kernels.h"
#include "packed.h"
#include "parallel.h"

// Bytes of a vector, and a function that adds products of unsigned and signed bytes, if there is one.
#if defined(__AVX512VNNI__)
enum { WIDE = 64 };
#define DOT_BYTES(sums, weights, values) \
    ((WideInts)_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(weights), (__m512i)(values)))
#else
enum { WIDE = 32 };
#if defined(__AVXVNNI__)
#define DOT_BYTES(sums, weights, values) \
    ((WideInts)_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(weights), (__m256i)(values)))
#endif
#endif

enum { MAX_ROWS = 16, LARGEST = 127 * 256, SUBS_PER_ITEM = 64, ITEM_BYTES = 1 << 15 };
enum { WIDE_SUBS = WIDE / SUB, VECTORS = TILE / WIDE };  // sub-blocks of a vector, vectors of a tile
// Weights are prefetched so many bytes ahead: unpacking would otherwise wait for memory.
enum { AHEAD = 8192 };
enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 30 };

typedef uint8_t WideBytes __attribute__((vector_size(WIDE)));
typedef int32_t WideInts __attribute__((vector_size(WIDE)));
typedef float WideFloats __attribute__((vector_size(WIDE)));
typedef int16_t EightShorts __attribute__((vector_size(16)));

// Quantised rows. A value is the scale of its 32 values times an integer. The 16-bit integers of WIDE
// values lie as the product takes them: with DOT_BYTES their high bytes, then the low ones, both
// signed; otherwise those of even positions, then those of odd ones.
typedef struct {
    int8_t *values;     // [rows, tiles, VECTORS, 2, WIDE]
    float *scales;      // [rows, tiles, SUBS]
    float *sums;        // [rows, tiles, SUBS]: of 32 values
    float *half_sums;   // [rows, tiles, 2 * SUBS]: of 16 values
    int rows, size, tiles;
} Quantised;

// What is quantised.
typedef struct {
    const void *values;  // [rows, size], or [rows, 2 * size]: gate, then up, of which silu(gate) * up
    const float *norm;   // [size]: rows go through RMS norm, or NULL
    float eps;
    int is_bf16, is_gated;
} Source;

typedef struct {
    Source source;
    Quantised out;
    int parts;  // items per row
} QuantiseJob;

// Where the integers of a sub-block begin; their other halves are WIDE bytes further.
INLINE size_t place_of(size_t sub) {
    return sub / WIDE_SUBS * 2 * WIDE + sub % WIDE_SUBS * SUB;
}

INLINE float read_value(const Source *source, size_t index, int is_bf16) {
    return is_bf16 ? from_bf16(((const uint16_t *)source->values)[index])
                   : ((const float *)source->values)[index];
}

// The factor that RMS norm gives a row.
INLINE float norm_factor(const Source *source, int row, int size, int is_bf16) {
    size_t first = (size_t)row * size;
    float lanes[LANES] = {0}, sum = 0;
    for (int i = 0; i < size; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float value = read_value(source, first + i + j, is_bf16);
            lanes[j] += value * value;
        }
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return 1.0f / sqrtf(sum / (float)size + source->eps);
}

// Reads 32 values of a row.
INLINE void read_sub(const Source *source, int row, int size, int first, float factor, int is_bf16,
                     float *out) {
    if (source->is_gated) {
        size_t gate = (size_t)row * 2 * size + first, up = gate + size;
        for (int i = 0; i < SUB; i++) {
            float value = read_value(source, gate + i, is_bf16);
            out[i] = value / (1.0f + exp_finite(-value)) * read_value(source, up + i, is_bf16);
        }
        return;
    }
    size_t index = (size_t)row * size + first;
    for (int i = 0; i < SUB; i++) out[i] = read_value(source, index + i, is_bf16);
    if (source->norm)
        for (int i = 0; i < SUB; i++) out[i] = out[i] * factor * source->norm[first + i];
}

INLINE void quantise_sub(const float *in, int8_t *values, float *scale, float *sum,
                         float *half_sums) {
    enum { EIGHTS = SUB / 8 };
    Floats vectors[EIGHTS];
    Ints whole[EIGHTS], sizes = {0};
    for (int i = 0; i < EIGHTS; i++) {
        vectors[i] = load_floats(in + 8 * i);
        // Without their signs, floats are ordered as integers are. The largest is what is not finite.
        sizes = __builtin_elementwise_max(sizes, (Ints)vectors[i] & INT32_MAX);
    }
    int32_t bits = __builtin_reduce_max(sizes);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    // Numbers whose inverse is infinite become 0.
    float inverse = largest > 1e-34f ? (float)LARGEST / largest : 0.0f;
    for (int i = 0; i < EIGHTS; i++)
        whole[i] = __builtin_convertvector(__builtin_elementwise_rint(vectors[i] * inverse), Ints);
#ifdef DOT_BYTES
    for (int i = 0; i < EIGHTS; i++) {
        Ints high = (whole[i] + 128) >> 8;
        EightSigned bytes = __builtin_convertvector(high, EightSigned);
        memcpy(values + 8 * i, &bytes, sizeof bytes);
        bytes = __builtin_convertvector(whole[i] - 256 * high, EightSigned);
        memcpy(values + WIDE + 8 * i, &bytes, sizeof bytes);
    }
#else
    for (int i = 0; i < EIGHTS; i += 2) {
        Ints even = __builtin_shufflevector(whole[i], whole[i + 1], 0, 2, 4, 6, 8, 10, 12, 14);
        Ints odd = __builtin_shufflevector(whole[i], whole[i + 1], 1, 3, 5, 7, 9, 11, 13, 15);
        EightShorts shorts = __builtin_convertvector(even, EightShorts);
        memcpy(values + 8 * i, &shorts, sizeof shorts);
        shorts = __builtin_convertvector(odd, EightShorts);
        memcpy(values + WIDE + 8 * i, &shorts, sizeof shorts);
    }
#endif
    float first = (float)__builtin_reduce_add(whole[0] + whole[1]);
    float second = (float)__builtin_reduce_add(whole[2] + whole[3]);
    *scale = largest / (float)LARGEST;
    half_sums[0] = first * *scale;
    half_sums[1] = second * *scale;
    *sum = (first + second) * *scale;
}

INLINE void quantise_part(const QuantiseJob *job, int row, int first, int last, int is_bf16) {
    const Quantised *out = &job->out;
    int padded = out->tiles * SUBS;
    float factor = job->source.norm ? norm_factor(&job->source, row, out->size, is_bf16) : 1.0f;
    for (int sub = first; sub < last; sub++) {
        float in[SUB] = {0};
        if (sub < out->size / SUB)
            read_sub(&job->source, row, out->size, sub * SUB, factor, is_bf16, in);
        size_t index = (size_t)row * padded + sub;
        quantise_sub(in, out->values + place_of(index), out->scales + index, out->sums + index,
                     out->half_sums + 2 * index);
    }
}

static void quantise_item(void *context, int item) {
    const QuantiseJob *job = context;
    int row = item / job->parts, first = item % job->parts * SUBS_PER_ITEM;
    int last = first + SUBS_PER_ITEM, padded = job->out.tiles * SUBS;
    if (last > padded) last = padded;
    if (job->source.is_bf16)
        quantise_part(job, row, first, last, 1);
    else
        quantise_part(job, row, first, last, 0);
}

// Quantises rows into memory that release_rows frees. Returns whether there was memory.
static int quantise(Source source, int rows, int size, Quantised *out) {
    int tiles = (size + TILE - 1) / TILE;
    size_t subs = (size_t)rows * tiles * SUBS;
    // Aligned, so that what a product loads lies in one cache line.
    char *memory = aligned_alloc(64, subs * (2 * SUB + 4 * sizeof(float)));
    if (!memory) return 0;
    float *scales = (float *)(memory + subs * 2 * SUB);
    *out = (Quantised){(int8_t *)memory, scales,     scales + subs, scales + 2 * subs,
                       rows,             size, tiles};
    QuantiseJob job = {source, *out, (tiles * SUBS + SUBS_PER_ITEM - 1) / SUBS_PER_ITEM};
    parallel_for(quantise_item, &job, rows * job.parts);
    return 1;
}

static void release_rows(Quantised *rows) { free(rows->values); }

INLINE WideBytes load_wide(const void *from) {
    WideBytes out;
    memcpy(&out, from, sizeof out);
    return out;
}

// Products of a vector of weights and as many quantised values, in lanes of four neighbours.
INLINE WideInts dot_wide(WideBytes weights, const int8_t *values) {
#if defined(DOT_BYTES)
    WideInts sums = DOT_BYTES((WideInts){0}, weights, load_wide(values));
    return DOT_BYTES(sums << 8, weights, load_wide(values + WIDE));
#elif defined(__AVX2__)
    __m256i even = _mm256_and_si256((__m256i)weights, _mm256_set1_epi16(255));
    __m256i odd = _mm256_srli_epi16((__m256i)weights, 8);
    __m256i first = _mm256_madd_epi16(even, (__m256i)load_wide(values));
    __m256i second = _mm256_madd_epi16(odd, (__m256i)load_wide(values + WIDE));
    return (WideInts)_mm256_add_epi32(first, second);
#else
    const int16_t *even = (const int16_t *)values, *odd = even + WIDE / 2;
    WideInts sums = {0};
    for (int lane = 0; lane < WIDE / 4; lane++)
        sums[lane] = weights[4 * lane] * even[2 * lane] + weights[4 * lane + 1] * odd[2 * lane] +
                     weights[4 * lane + 2] * even[2 * lane + 1] +
                     weights[4 * lane + 3] * odd[2 * lane + 1];
    return sums;
#endif
}

// Adds the products of a tile's bytes and the values of a row, `vectors` of each. `factors` are the
// scales of the weights times those of the values, one for `per_scale` weights.
INLINE WideFloats add_tile(WideFloats sums, const Tile *tile, int vectors, int per_scale,
                           const Floats *factors, const int8_t *values) {
    WideFloats parts[2] = {{0}};
// Unrolled, scales are spread within registers.
#pragma clang loop unroll(full)
    for (int i = 0; i < VECTORS; i++) {
        if (i >= vectors) continue;
        WideInts whole = dot_wide(load_wide((const uint8_t *)tile->values + i * WIDE),
                                  values + (size_t)i * 2 * WIDE);
        WideFloats scales;
        for (int lane = 0; lane < WIDE / 4; lane++) {
            int scale = (i * WIDE + 4 * lane) / per_scale;
            scales[lane] = factors[scale / 8][scale % 8];
        }
        parts[i % 2] += __builtin_convertvector(whole, WideFloats) * scales;
    }
    return sums + (parts[0] + parts[1]);
}

typedef void Unpack(const uint8_t *block, int subs, Tile *tile);

// Multiplies a tile of a row of weights, `subs` times 32, with quantised rows.
INLINE void multiply_tile(Unpack *unpack, size_t tile_bytes, int per_scale, const uint8_t *weights,
                          int number, int subs, const Quantised *rows, const int *chosen, int count,
                          WideFloats *sums, Floats *minima) {
    for (size_t line = 0; line < tile_bytes; line += 64)
        __builtin_prefetch(weights + AHEAD + line, 0, 2);
    Tile tile = {0};
    unpack(weights, subs, &tile);
    for (int i = 0; i < count; i++) {
        size_t at = ((size_t)chosen[i] * rows->tiles + number) * SUBS;
        Floats scales = load_floats(rows->scales + at), factors[2];
        if (per_scale == SUB) {
            factors[0] = tile.scales[0] * scales;
            minima[i] += tile.minima[0] * load_floats(rows->sums + at);
        } else {
            const float *half_sums = rows->half_sums + 2 * at;
            factors[0] = tile.scales[0] *
                         __builtin_shufflevector(scales, scales, 0, 0, 1, 1, 2, 2, 3, 3);
            factors[1] = tile.scales[1] *
                         __builtin_shufflevector(scales, scales, 4, 4, 5, 5, 6, 6, 7, 7);
            minima[i] += tile.minima[0] * load_floats(half_sums);
            minima[i] += tile.minima[1] * load_floats(half_sums + SUBS);
        }
        sums[i] = add_tile(sums[i], &tile, (subs + WIDE_SUBS - 1) / WIDE_SUBS, per_scale, factors,
                           rows->values + place_of(at));
    }
}

// Multiplies one row of weights with quantised rows, `count` of them, `chosen` by number.
INLINE void multiply(Unpack *unpack, int block, int bytes, int per_scale, const uint8_t *weights,
                     const Quantised *rows, const int *chosen, int count, float *out) {
    size_t tile_bytes = (size_t)TILE / block * bytes;
    int whole = rows->size / TILE, rest = rows->size % TILE / SUB;
    WideFloats sums[MAX_ROWS];
    Floats minima[MAX_ROWS];
    for (int i = 0; i < count; i++) {
        sums[i] = (WideFloats){0};
        minima[i] = (Floats){0};
    }
    for (int t = 0; t < whole; t++)
        multiply_tile(unpack, tile_bytes, per_scale, weights + t * tile_bytes, t, SUBS, rows,
                      chosen, count, sums, minima);
    if (rest)
        multiply_tile(unpack, tile_bytes, per_scale, weights + whole * tile_bytes, whole, rest,
                      rows, chosen, count, sums, minima);
    for (int i = 0; i < count; i++) {
        float lanes[WIDE / 4];
        memcpy(lanes, &sums[i], sizeof lanes);
        for (int lane = 0; lane < 8; lane++) lanes[lane] -= minima[i][lane];
        for (int half = WIDE / 8; half; half /= 2)
            for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
        out[i] = lanes[0];
    }
}

// The quantised value of a position below 32.
INLINE int value_at(const int8_t *values, int i) {
#ifdef DOT_BYTES
    return 256 * values[i] + values[WIDE + i];
#else
    return ((const int16_t *)values)[i % 2 * WIDE / 2 + i / 2];
#endif
}

INLINE float weight_at(const uint8_t *weights, int i, int type) {
    float out;
    if (type == TYPE_F16) return load_half(weights + 2 * i);
    if (type == TYPE_BF16) return from_bf16(((const uint16_t *)weights)[i]);
    memcpy(&out, weights + 4 * i, sizeof out);
    return out;
}

// As multiply, for weights that are floating-point numbers.
INLINE void multiply_floats(int type, int bytes, const uint8_t *weights, const Quantised *rows,
                            const int *chosen, int count, float *out) {
    for (int i = 0; i < count; i++) {
        size_t index = (size_t)chosen[i] * rows->tiles * SUBS;
        float lanes[8] = {0};
        for (int sub = 0; sub < rows->size / SUB; sub++) {
            const int8_t *values = rows->values + place_of(index + sub);
            float part[8] = {0};
            for (int first = 0; first < SUB; first += 8)
                for (int j = 0; j < 8; j++)
                    part[j] += weight_at(weights + (size_t)(sub * SUB + first) * bytes, j, type) *
                               (float)value_at(values, first + j);
            for (int j = 0; j < 8; j++) lanes[j] += part[j] * rows->scales[index + sub];
        }
        out[i] = 0;
        for (int j = 0; j < 8; j++) out[i] += lanes[j];
    }
}

typedef void Multiply(const uint8_t *weights, const Quantised *rows, const int *chosen, int count,
                      float *out);

// One row keeps its sums in registers.
#define DEFINE_PACKED(name, type, block, bytes, per_scale)                                        \
    static void multiply_##name(const uint8_t *weights, const Quantised *rows, const int *chosen, \
                                int count, float *out) {                                          \
        if (count == 1)                                                                           \
            multiply(unpack_##name, block, bytes, per_scale, weights, rows, chosen, 1, out);      \
        else                                                                                      \
            multiply(unpack_##name, block, bytes, per_scale, weights, rows, chosen, count, out);  \
    }
PACKED_FORMATS(DEFINE_PACKED)

#define DEFINE_FLOATS(name, type, bytes)                                                          \
    static void multiply_##name(const uint8_t *weights, const Quantised *rows, const int *chosen, \
                                int count, float *out) {                                          \
        multiply_floats(type, bytes, weights, rows, chosen, count, out);                          \
    }
DEFINE_FLOATS(f32, TYPE_F32, 4)
DEFINE_FLOATS(f16, TYPE_F16, 2)
DEFINE_FLOATS(bf16, TYPE_BF16, 2)

typedef struct {
    Multiply *multiply;
    int block, bytes;
} Format;

#define FORMAT_ENTRY(name, type, block, bytes, per_scale) [type] = {multiply_##name, block, bytes},
static const Format formats[] = {
    [TYPE_F32] = {multiply_f32, 1, 4},
    [TYPE_F16] = {multiply_f16, 1, 2},
    [TYPE_BF16] = {multiply_bf16, 1, 2},
    PACKED_FORMATS(FORMAT_ENTRY)};

// A weight and the rows it multiplies.
typedef struct {
    const uint8_t *weight;  // [outputs, bytes of a row]
    Format format;
    int outputs;
    int column;         // of its first output in the result
    const int *inputs;  // [count]: numbers of quantised rows
    const int *results; // [count]: numbers of the result's rows
    int count;
    int first_item;
} Product;

typedef struct {
    const Quantised *rows;
    const Product *products;
    int number;  // of products
    const void *residual;   // [results, columns] like `out`, or NULL
    void *out;              // [results, columns]
    int columns, is_bf16;
} ProductJob;

static int outputs_per_item(const Product *product, int size) {
    size_t bytes = (size_t)size / product->format.block * product->format.bytes;
    int outputs = (int)(ITEM_BYTES / bytes);
    return outputs < 8 ? 8 : outputs;
}

static void store(const ProductJob *job, int row, int column, float value) {
    size_t index = (size_t)row * job->columns + column;
    if (job->is_bf16) {
        if (job->residual) value += from_bf16(((const uint16_t *)job->residual)[index]);
        ((uint16_t *)job->out)[index] = to_bf16(value);
    } else {
        if (job->residual) value += ((const float *)job->residual)[index];
        ((float *)job->out)[index] = value;
    }
}

static void product_item(void *context, int item) {
    const ProductJob *job = context;
    int number = 0;
    while (number + 1 < job->number && job->products[number + 1].first_item <= item) number++;
    const Product *product = job->products + number;
    size_t bytes = (size_t)job->rows->size / product->format.block * product->format.bytes;
    int per_item = outputs_per_item(product, job->rows->size);
    int first = (item - product->first_item) * per_item, last = first + per_item;
    if (last > product->outputs) last = product->outputs;
    for (int output = first; output < last; output++) {
        const uint8_t *weights = product->weight + output * bytes;
        float sums[MAX_ROWS];
        product->format.multiply(weights, job->rows, product->inputs, product->count, sums);
        for (int i = 0; i < product->count; i++)
            store(job, product->results[i], product->column + output, sums[i]);
    }
}

// Runs products with at most MAX_ROWS rows each.
static void run_products(ProductJob *job, Product *products) {
    int items = 0;
    for (int i = 0; i < job->number; i++) {
        int per_item = outputs_per_item(products + i, job->rows->size);
        products[i].first_item = items;
        items += (products[i].outputs + per_item - 1) / per_item;
    }
    job->products = products;
    parallel_for(product_item, job, items);
}

enum { MAX_PARTS = 8 };

// Sets the products of an expert's parts, or of the only weight, with `count` rows.
static void set_products(Product *products, const RowPart *parts, int number, int expert, int size,
                         const int *inputs, const int *results, int count) {
    int column = 0;
    for (int i = 0; i < number; i++) {
        Format format = formats[parts[i].type];
        size_t bytes = (size_t)size / format.block * format.bytes * parts[i].outputs;
        products[i] = (Product){parts[i].data + expert * bytes, format,  parts[i].outputs, column,
                                inputs,                         results, count,            0};
        column += parts[i].outputs;
    }
}

// out = inputs @ weight.T + residual, for at most 16 rows, whose RMS norm is taken if there is a
// norm, or which are gated.
int hga_packed_rows(const void *inputs, const float *norm, const RowPart *parts, const void *residual,
                    void *out, int rows, int size, int number, int columns, int in_is_bf16,
                    int is_gated, int out_is_bf16, float eps) {
    Source source = {inputs, norm, eps, in_is_bf16, is_gated};
    Quantised quantised;
    Product products[MAX_PARTS];
    int numbers[MAX_ROWS];
    if (!quantise(source, rows, size, &quantised)) return 1;
    for (int i = 0; i < rows; i++) numbers[i] = i;
    set_products(products, parts, number, 0, size, numbers, numbers, rows);
    ProductJob job = {&quantised, products, number, residual, out, columns, out_is_bf16};
    run_products(&job, products);
    release_rows(&quantised);
    return 0;
}

// The sum of what the experts of each row put out. Assignment `row * per_row + i` is the row's i-th.
typedef struct {
    const float *hidden;   // [rows, size]
    const float *shares;   // [rows, per_row]
    const float *outputs;  // [rows * per_row, size]
    float *out;            // [rows, size]
    int size, per_row;
} MixJob;

static void mix_row(void *context, int row) {
    const MixJob *job = context;
    float *out = job->out + (size_t)row * job->size;
    memcpy(out, job->hidden + (size_t)row * job->size, job->size * sizeof(float));
    for (int i = 0; i < job->per_row; i++) {
        size_t assignment = (size_t)row * job->per_row + i;
        const float *from = job->outputs + assignment * job->size;
        for (int j = 0; j < job->size; j++) out[j] += job->shares[assignment] * from[j];
    }
}

// Multiplies the rows of each assignment with the parts of its expert. Returns whether there was
// memory. Assignments are sorted by expert, those of expert e from first[e] on: `inputs` are the
// numbers of their rows, `order` their own.
static int run_experts(Source source, int rows, int size, const RowPart *parts, int number,
                       const int32_t *first, int experts, const int *inputs, const int *order,
                       float *out, int columns, Product *products) {
    Quantised quantised;
    int used = 0;
    if (!quantise(source, rows, size, &quantised)) return 0;
    for (int expert = 0; expert < experts; expert++) {
        int count = first[expert + 1] - first[expert];
        if (!count) continue;
        set_products(products + used, parts, number, expert, size, inputs + first[expert],
                     order + first[expert], count);
        used += number;
    }
    ProductJob job = {&quantised, products, used, NULL, out, columns, 0};
    run_products(&job, products);
    release_rows(&quantised);
    return 1;
}

// out = hidden + the sum of the chosen experts' gated MLPs of the norm, times their shares. For at
// most 16 rows of float32. Every row chooses an expert once at most.
int hga_packed_experts(const float *hidden, const float *norm, const int32_t *chosen,
                       const float *shares, const RowPart *gate_up, const RowPart *down, float *out,
                       int rows, int size, int width, int experts, int per_row, int gate_up_parts,
                       int down_parts, float eps) {
    int assignments = rows * per_row;
    size_t floats = (size_t)assignments * (2 * width + size);
    size_t numbers = 2 * (size_t)assignments + experts + 2;
    float *gates = malloc(floats * sizeof(float));
    int *order = malloc(numbers * sizeof(int));
    Product *products = malloc((size_t)assignments * MAX_PARTS * sizeof(Product));
    int done = gates && order && products;
    if (done) {
        float *outputs = gates + (size_t)assignments * 2 * width;
        int *inputs = order + assignments, *first = inputs + assignments;
        // Counting sort: first[e + 1] is where the next assignment of expert e goes, and in the end
        // where those of the next expert begin.
        memset(first, 0, (experts + 2) * sizeof(int));
        for (int i = 0; i < assignments; i++) first[chosen[i] + 2]++;
        for (int expert = 0; expert < experts; expert++) first[expert + 2] += first[expert + 1];
        for (int i = 0; i < assignments; i++) order[first[chosen[i] + 1]++] = i;
        for (int i = 0; i < assignments; i++) inputs[i] = order[i] / per_row;
        Source normed = {hidden, norm, eps, 0, 0}, gated = {gates, NULL, 0, 0, 1};
        done = run_experts(normed, rows, size, gate_up, gate_up_parts, first, experts, inputs,
                           order, gates, 2 * width, products) &&
               run_experts(gated, assignments, width, down, down_parts, first, experts, order,
                           order, outputs, size, products);
        MixJob job = {hidden, shares, outputs, out, size, per_row};
        if (done) parallel_for(mix_row, &job, rows);
    }
    free(products);
    free(order);
    free(gates);
    return !done;
}

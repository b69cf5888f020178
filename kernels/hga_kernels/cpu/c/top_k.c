// Finds the k-th largest value bit by bit, among fewer and fewer values, then lists those above it.
#include "top_k.h"

#include <stddef.h>
#include <string.h>

#include "bf16.h"

enum { SET = 16 };

static int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

// Copies the values whose bits are at least `least`, in order; returns how many. `out` may be
// `values`.
static int copy_at_least(const float *values, int count, int32_t least, float *out) {
    int copied = 0, i = 0;
#ifdef HGA_AVX512_VNNI
    for (; i + LANES <= count; i += LANES) {
        __m512i some = _mm512_loadu_si512(values + i);
        __mmask16 mask = _mm512_cmpge_epi32_mask(some, _mm512_set1_epi32(least));
        // Whole vectors are stored: the lanes behind the copied ones are overwritten later.
        _mm512_storeu_si512(out + copied, _mm512_maskz_compress_epi32(mask, some));
        copied += __builtin_popcount(mask);
    }
#endif
    for (; i < count; i++)
        if (bits_of(values[i]) >= least) out[copied++] = values[i];
    return copied;
}

// Writes the maxima of sets of SET values each; returns how many. An incomplete set is left out.
static int maxima_of_sets(const float *values, int count, float *maxima) {
    int sets = 0;
    for (; (sets + LANES) * SET <= count; sets += LANES) {
        const float *first = values + (size_t)sets * SET;
        float lanes[LANES];
        memcpy(lanes, first, sizeof lanes);
        for (int i = LANES; i < LANES * SET; i += LANES)
            for (int j = 0; j < LANES; j++)
                lanes[j] = first[i + j] > lanes[j] ? first[i + j] : lanes[j];
        memcpy(maxima + sets, lanes, sizeof lanes);
    }
    return sets;
}

// The bits of a threshold that at least k of the values reach: the k-th largest value or, where no
// value lies between, a little less. Bits of values that are not negative order as the values do.
// `reaching` has room for the values that reach the threshold so far, and may be `values`.
static int32_t threshold_bits(const float *values, int count, int k, float *reaching) {
    int32_t found = 0;
    int reach = count, left = count;
    for (int bit = 30; bit >= 0 && reach != k; bit--) {
        int32_t least = found | 1 << bit;
        int above = 0;
        for (int i = 0; i < left; i++) above += bits_of(values[i]) >= least;
        if (above < k) continue;
        found = least;
        reach = above;
        if (reach > left / 4) continue;
        left = copy_at_least(values, left, found, reaching);
        values = reaching;
    }
    return found;
}

// The threshold as a number. Of many values only those are searched that reach the threshold of the
// maxima of sets, which at least k do.
static float threshold(const float *values, int count, int k, float *reaching) {
    int sets = maxima_of_sets(values, count, reaching);
    int32_t least = 0;
    if (sets >= k) {
        least = threshold_bits(reaching, sets, k, reaching);
        count = copy_at_least(values, count, least, reaching);
        values = reaching;
    }
    int32_t bits = threshold_bits(values, count, k, reaching);
    bits = bits > least ? bits : least;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}

// Writes the indices of the values that reach `least`, in order; returns how many.
static int indices_at_least(const float *values, int count, float least, int32_t *indices) {
    int found = 0, i = 0;
#ifdef HGA_AVX512_VNNI
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + LANES <= count; i += LANES) {
        __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), _mm512_set1_ps(least),
                                            _CMP_GE_OQ);
        __m512i own = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
        _mm512_storeu_si512(indices + found, _mm512_maskz_compress_epi32(mask, own));
        found += __builtin_popcount(mask);
    }
#endif
    for (; i < count; i++)
        if (values[i] >= least) indices[found++] = i;
    return found;
}

void top_k(const float *values, int count, int k, int32_t *indices, void *scratch) {
    int taken = 0;
    if (count > k) {
        float least = threshold(values, count, k, scratch);
        const int32_t *some = scratch;
        int reach = indices_at_least(values, count, least, scratch), equal = k;
        for (int i = 0; i < reach; i++) equal -= values[some[i]] > least;
        for (int i = 0; i < reach; i++)
            if (values[some[i]] > least || equal-- > 0) indices[taken++] = some[i];
    } else
        for (; taken < count; taken++) indices[taken] = taken;
    for (; taken < k; taken++) indices[taken] = -1;
}

// Intel AMX, the matrix unit of some CPUs, for products of bytes and of bf16.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bf16.h"

enum { AMX_TILES = 8, AMX_ROWS = 16 };

#if defined(__linux__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && \
    defined(HGA_AVX512_VNNI) && defined(HGA_AVX512_BF16)
#define HGA_AMX

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

// Asks the system for permission to use AMX, for all threads of the process.
static inline int allow_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };  // arch_prctl(2)
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Gives all tiles of this thread 16 rows of 64 bytes.
static inline void configure_amx(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } sizes = {.palette = 1};
    for (int tile = 0; tile < AMX_TILES; tile++) {
        sizes.row_bytes[tile] = 64;
        sizes.rows[tile] = AMX_ROWS;
    }
    _tile_loadconfig(&sizes);
}

// Clears tiles 0 to 3, which hold sums of products. All of them before the first product: a product
// right after the clearing of its own tile waits.
static inline __attribute__((always_inline)) void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Stores the sums, 16 values a row of a tile. Tiles are `tile_bytes` apart, rows `row_bytes`.
static inline __attribute__((always_inline)) void store_sums(void *out, size_t tile_bytes,
                                                             size_t row_bytes) {
    char *first = out;
    _tile_stored(0, first, row_bytes);
    _tile_stored(1, first + tile_bytes, row_bytes);
    _tile_stored(2, first + 2 * tile_bytes, row_bytes);
    _tile_stored(3, first + 3 * tile_bytes, row_bytes);
}
#else
static inline int allow_amx(void) { return 0; }
#endif

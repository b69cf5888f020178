// The matrix unit of CPUs that have one (Intel AMX), for products of bytes and of bf16.
#ifndef HGA_TILES_H
#define HGA_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "bf16.h"

enum { TILES = 8, TILE_ROWS = 16 };

#if defined(__linux__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && \
    defined(HGA_AVX512_VNNI) && defined(HGA_AVX512_BF16)
#define HGA_AMX

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

// Asks the system for the tiles' state, for all threads of the process.
static inline int may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };  // arch_prctl(2)
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// All tiles of this thread hold 16 rows of 64 bytes.
static inline void set_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } sizes = {.palette = 1};
    for (int tile = 0; tile < TILES; tile++) {
        sizes.row_bytes[tile] = 64;
        sizes.rows[tile] = TILE_ROWS;
    }
    _tile_loadconfig(&sizes);
}

// Tiles 0 to 3 hold sums of products. All are cleared before the first product: one that follows the
// clearing of its own tile at once waits.
static inline __attribute__((always_inline)) void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Stores the sums, of which each tile has 16 values a row: `apart` is from tile to tile, `row_bytes`
// from row to row.
static inline __attribute__((always_inline)) void store_sums(void *out, size_t apart,
                                                             size_t row_bytes) {
    char *first = out;
    _tile_stored(0, first, row_bytes);
    _tile_stored(1, first + apart, row_bytes);
    _tile_stored(2, first + 2 * apart, row_bytes);
    _tile_stored(3, first + 3 * apart, row_bytes);
}
#else
static inline int may_use_tiles(void) { return 0; }
#endif

#endif

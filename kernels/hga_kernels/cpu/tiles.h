// The matrix unit of CPUs that have one (Intel AMX), for products of bytes and of bf16.
#ifndef HGA_TILES_H
#define HGA_TILES_H

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
#else
static inline int may_use_tiles(void) { return 0; }
#endif

#endif

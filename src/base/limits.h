/* base/limits.h -- every constant with its unit in its name, and the asserts that relate them.
 *
 *   region    2^24 granules of 64 KiB: 1 TiB of addresses, reserved as it is needed
 *   arena     2048 granules: 128 MiB, the reach of one set of bitmaps
 *   chunk     64 granules: 4 MiB, one bitmap word, the step in which memory is mapped
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#ifndef GRANARY_HARDENED
#define GRANARY_HARDENED 0
#endif

/* The hardened build: docs/hardened.md. */
enum { HARDENED = GRANARY_HARDENED };

enum {
    GRANULE_SHIFT = 16,
    GRANULE_BYTES = 1 << GRANULE_SHIFT,
    CHUNK_GRANULES = 64,
    CHUNK_BYTES = CHUNK_GRANULES * GRANULE_BYTES,
    ARENA_CHUNKS = 32,
    ARENA_GRANULES = ARENA_CHUNKS * CHUNK_GRANULES,
    ARENA_BYTES = ARENA_GRANULES * GRANULE_BYTES,
    REGION_GRANULES = 1 << 24,
    REGION_ARENAS = REGION_GRANULES / ARENA_GRANULES,

    MIN_ALIGN = 16,
    SMALL_MAX_BYTES =
        HARDENED ? 260 * 1024 : 256 * 1024, /* the largest size class; hardened: with a seal behind 256 KiB */
    LARGE_MAX_GRANULES = 1024,              /* 64 MiB: above it a block has its own mapping */
    SLAB_MIN_BLOCKS = 8,
    SLAB_MAX_BLOCKS = GRANULE_BYTES / MIN_ALIGN,
    SLAB_WORDS = SLAB_MAX_BLOCKS / 64,
    SLAB_NEAR_WORDS = 6, /* of them, what a line holds beside a slab's state: 384 blocks */

    LINEAR_CLASSES = 32, /* up to LINEAR_MAX_BYTES */
    SIZE_CLASSES = 96,   /* of different sizes */
    SHARDED_CLASSES = 3, /* the first of them, whose blocks share cache lines, exist once for each shard */
    SHARDS = 8,
    HEADS = 32, /* of each class's depot and of the pools of magazines: a thread begins with that of its home */
    CLASSES = SIZE_CLASSES + SHARDED_CLASSES * (SHARDS - 1), /* small classes are 1..CLASSES; 0 is "not ours" */
    CLASS_LARGE = CLASSES + 1,                               /* first granule of a large run */
    CLASS_INSIDE = CLASSES + 2,                              /* any further granule of one */
    CLASS_SLOTS = CLASSES + 3,
    LINEAR_MAX_BYTES = 1024,     /* up to here a table of 16-byte steps gives the class, above one of 128-byte steps */
    SIZED_MAX_BYTES = 32 * 1024, /* up to here sized frees do not look at the page map */

    GUARD_BYTES = 4096,            /* without access, at the end of each slab; where a page is larger there are none */
    SEAL_BYTES = HARDENED ? 8 : 0, /* at the end of each block of a slab; see `slab/seal.h` */
    SLACK_MARK = 0xc5,             /* the byte behind a block's last: no digit, no letter, neither 0, 1 nor -1 */
    DELAY_SLOTS = HARDENED ? 16 : 1,    /* blocks of a class that a thread holds back after their free, at most */
    DELAY_BYTES = 32 * 1024,            /* and in bytes, but one block */
    HELD_BACK_RUNS = HARDENED ? 32 : 1, /* large and huge blocks that stay without access after their free */
    SPLIT_FROM_GRANULES = 8,            /* whole runs of so many are guarded by splitting a mapping, */
    SPLIT_MOST_WHOLE = 32768,           /* of so many granules; others by marks in their pages' entries, */
    SPLIT_MOST = 8192,                  /* and where there are none, by splitting, of so many */

    GUARDED_SLOTS = 256,      /* the plain build's guarded blocks, live or freed last */
    GUARDED_MAX_BYTES = 4096, /* of a guarded block: no page is smaller */
    TRACE_FRAMES = 16,        /* callers that are kept of an allocation, and of a free */

    META_CHUNK_BYTES = 64 * 1024, /* step in which records are mapped */
    HUGE_RECORDS = 1 << 16,       /* blocks with mappings of their own; the kernel's map limit is near it */

    THP_NOT_BEFORE_CHUNKS = 2,  /* 8 MiB of small slabs before huge pages are asked for behind filled ones, */
    THP_FROM_CHUNKS = 16,       /* and 64 MiB before they are asked for without a look, */
    THP_FROM_GRANULES = 64,     /* and large blocks of 4 MiB, if not all blocks are known to be written whole */
    TELLING_GRANULES = 16,      /* large blocks that tell how they were used: from 1 MiB on */
    THP_UNTOLD_GRANULES = 4096, /* 256 MiB under large blocks at most, before one has told that it was written whole */
    HUGE_PAGE_GRANULES = 32,    /* 2 MiB, where a page is 4 KiB */
    THP_MOST_US = 1000,         /* a dear huge page takes more; 80 to 500 are usual, 150 to 700 for 512 small ones */
    THP_PASS = 32,              /* so many are not asked for after a dear one, four times as many after each further */
    THP_PASS_STEPS = 4,         /* of these, at most */

    CACHE_TICK_MS = 1000,
    KEEPER_FROM_GRANULES = 512, /* 32 MiB in use before there is a housekeeping thread */
    LIMIT_FROM_GRANULES = 512,  /* and before the control group's limit is asked for, */
    LIMIT_ASK_MS = 5000,        /* again after so long */
    PURGE_TICK_MS = 100,
    PURGE_TURN_GRANULES = 64,        /* 4 MiB of madvise at most in one turn, */
    PURGE_TURN_US = 1000,            /* and no further step of one that has taken so long */
    SPARSE_TURN_GRANULES = 512,      /* 32 MiB looked at in one turn for what is hardly in memory */
    SPARSE_SWEEP_GRANULES = 3 << 18, /* 48 GiB of large blocks freed between looks for what is hardly there */
    GROWTH_SLABS = 16,               /* more than ever, between looks for idle classes */
};

_Static_assert(sizeof(void *) == 8, "a region of 1 TiB and tags beside addresses want 64-bit addresses");
_Static_assert(SLAB_WORDS == 64, "one bitmap word per 64 smallest blocks of a granule");
_Static_assert(LARGE_MAX_GRANULES <= ARENA_GRANULES, "a run lies in one arena");
_Static_assert(SMALL_MAX_BYTES / GRANULE_BYTES * SLAB_MIN_BLOCKS <= CHUNK_GRANULES, "a slab lies in one chunk");
_Static_assert(CLASS_SLOTS < 256, "a class fits the page map's byte");

#endif

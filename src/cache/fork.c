/* cache/fork.c -- see `cache/fork.h`. */
#include "cache/fork.h"

#include "cache/keeper.h"
#include "cache/thread.h"
#include "os/os.h"
#include "page/guard.h"
#include "page/guarded.h"
#include "page/huge.h"
#include "page/limit.h"
#include "page/purge.h"

/* the child's alone, which is one thread when it sets this: no order to keep */
struct half gr_repair_pending;
static uint64_t born_at_fork;
static volatile int *mark_of_survivor; /* its gr_inside: no other thread has that address */

static bool is_held(size_t granule) { return page_class(granule) != 0; }

/* The blocks from top down to bottom. The top is out of bounds where the thread died while it changed magazines; one below the
 * bottom, where it found the magazine empty. */
static void salvage_magazine(unsigned home, unsigned class, struct magazine *m, void **top, unsigned bottom) {
    if (!m || top + 1 < m->slot + bottom || top > m->slot + m->rounds)
        return;
    void **rounds = m->slot + bottom + 1;
    if (top >= rounds)
        gr_bin_return(class, rounds, gr_reclaim_close_up(rounds, (unsigned)(top + 1 - rounds)), "free");
    gr_magazine_free(home, m);
}

void gr_salvage(struct cache *dead) {
    for (unsigned class = 1; class <= CLASSES; class ++) {
        struct own *o = &dead->own[class];
        struct magazine *loaded = o->loaded, *spare = o->spare;
        GR_COMMIT(&o->loaded, NULL);
        GR_COMMIT(&o->spare, NULL);
        salvage_magazine(dead->index, class, loaded, loaded ? dead->top[class] : NULL, o->bottom);
        salvage_magazine(dead->index, class, spare, spare ? spare->slot + spare->count : NULL, 0);
        *o = (struct own){.loaded = NULL};
        gr_cache_release_delay(dead, class);
    }
    for (unsigned i = 0; i <= HELD; i++)
        dead->held[i] = (struct holding){.slab = 0};
    gr_cache_drop_empties(dead);
    dead->rounds_bytes = 0;
    gr_thread_bury(dead);
}

/* The slabs that a vanished thread held: nobody else could claim from them. */
static void relist(struct cache *dead, void *unused) {
    (void)unused;
    for (unsigned i = 0; cache_is_newly_orphan(dead) && i <= HELD; i++) {
        uint32_t slab = dead->held[i].slab;
        if (slab)
            gr_bin_relist(slab, (unsigned)page_class(slab));
    }
}

static void repair(void) {
    gr_purge_repair();
    gr_reclaim_repair(gr_self);
    gr_guarded_repair();
    if (HARDENED) {
        gr_guard_repair();
        if (gr_self->index)
            gr_self->random ^= os_secret() << 1; /* the child's choices are its own */
    }
    gr_each_cache(relist, NULL);
    gr_arenas_repair(is_held);
    struct arena_totals t = gr_arena_totals();
    gr_limit_repair((t.mapped - t.vacant + t.vacant_dirty) * GRANULE_BYTES + gr_huge_total());
}

void gr_repair_deferred(void) {
    if (&gr_inside != mark_of_survivor) /* a thread that the child has started: the survivor may still be in mid-step */
        return;
    half_store_relaxed(&gr_repair_pending, 0);
    if (gr_threads_born() == born_at_fork) {
        gr_inside++; /* not by slow_enter: its end would come back here */
        repair();
        gr_inside--;
    }
    gr_orphans_show();
}

static void child(void) {
    mark_of_survivor = &gr_inside;
    born_at_fork = gr_threads_born();
    gr_keeper_forget();
    gr_threads_forked();
    if (gr_inside)
        half_store_relaxed(&gr_repair_pending, 1);
    else
        gr_repair_deferred();
}

void gr_fork_watch(void) {
    gr_keeper_forget();
    os_at_fork_child(child);
}

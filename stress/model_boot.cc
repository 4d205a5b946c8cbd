/* model_boot.cc -- page/region.c and slab/seal.c as shipped: what the first threads of a process agree on, all at once. The base of
 * the region, with its first chunk mapped once; the secrets of the hardened build. And that one of the threads that free a sealed block at
 * once gets its seal. (The key of the thread-exit hook is in `model_os.cc`, the first chunk of records in `model_depot.cc`, the
 * first arena in `model_arena.cc`.)
 *
 * covers: S125 C2 C3
 */
#include "model/c.h"

#include "base/limits.h"
#include "os/options.h"
#include "os/os.h"

#include "page/region.c"
#include "slab/seal.c"

enum { THREADS = 3, MOST_MAPS = 4 };

struct boot_model;
static boot_model *now;
static enum os_result map_at(uintptr_t at);
static void unmap(uintptr_t at);

enum os_result os_map_at(void *at, size_t) { return map_at((uintptr_t)at); }
bool os_unmap(void *at, size_t) {
    unmap((uintptr_t)at);
    return true;
}
bool os_has_thread_sanitizer(void) { return false; }
uint64_t os_random(void) { return 77; } /* the same for all: they meet at one address */
static uint64_t secrets;
uint64_t os_secret(void) { return secrets += 2; }
uint64_t option_get(enum option) { return THP_NEVER; }
void os_want_huge_pages(void *, size_t, bool) {}
size_t os_page_bytes(void) { return 4096; }
bool os_residence(void *, size_t, uint8_t *) { return false; }
bool os_purge(void *, size_t) { return false; }
void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

struct boot_model : model::suite<boot_model, THREADS, 1, 6> {
    enum { BASE, SECRETS, SEALED, BLOCK = 32 };
    alignas(16) char block[BLOCK]; /* sealed for 20 bytes of its user */
    unsigned taken;
    rl::var<unsigned> chunk[MOST_MAPS]; /* written by who maps it */
    uintptr_t at[MOST_MAPS];
    bool mapped[MOST_MAPS];
    unsigned maps;
    uint64_t number[THREADS];

    void set_up() {
        bind(&gr_region_base, 0);
        bind(&gr_seal.add, 0);
        bind(&gr_seal.multiply, 0);
        bind(&drawn, 0);
        bind(&booted, 0);
        if (model::program == SEALED) {
            secrets = 0;
            gr_seal_boot();
            memset(block, 0, sizeof block);
            bind(seal_word(block, BLOCK), 0);
            seal_put(block, BLOCK, 20);
            half_store_relaxed(&gr_seal.shared, 1);
        }
        secrets = 0;
        taken = 0;
        maps = 0;
        for (unsigned i = 0; i < MOST_MAPS; i++) {
            chunk[i]($) = 0;
            mapped[i] = false;
        }
        now = this;
    }
    void run(unsigned thread) {
        if (model::program == SEALED) {
            taken += seal_slack(block, seal_take(block, BLOCK)) == BLOCK - SEAL_WORD - 20;
        } else if (model::program == BASE) {
            RL_ASSERT(gr_region_boot());
            uintptr_t base = region_base();
            unsigned i = 0;
            while (i < maps && at[i] != base)
                i++;
            RL_ASSERT(i < maps && mapped[i]);
            chunk[i]($).load();
        } else {
            number[thread] = gr_seal_random();
            uint64_t seal = seal_of(&gr_seal);
            RL_ASSERT(word_peek(&gr_seal.add) && word_peek(&gr_seal.multiply));
            RL_ASSERT(seal == seal_of(&gr_seal));
        }
    }
    void check() {
        if (model::program == SEALED) {
            RL_ASSERT(taken == 1); /* of all that free it at once */
        } else if (model::program == BASE) {
            unsigned kept = 0;
            for (unsigned i = 0; i < maps; i++) {
                RL_ASSERT(!mapped[i] || at[i] == model::final_value(&gr_region_base));
                kept += mapped[i];
            }
            RL_ASSERT(kept == 1);
        } else {
            RL_ASSERT(model::final_value(&booted) == 1);
            uint64_t first = model::final_value(&drawn) - THREADS * 0x9e3779b97f4a7c15ull;
            RL_ASSERT(first > 0 && first <= 20); /* one secret, and each has drawn once from it */
            RL_ASSERT(number[0] != number[1] && number[1] != number[2] && number[2] != number[0]);
        }
    }
};

static enum os_result map_at(uintptr_t at) {
    for (unsigned i = 0; i < now->maps; i++)
        if (now->mapped[i] && now->at[i] == at)
            return OS_TAKEN;
    unsigned i = now->maps++;
    RL_ASSERT(i < MOST_MAPS);
    now->at[i] = at;
    now->mapped[i] = true;
    now->chunk[i]($) = 1;
    return OS_OK;
}
static void unmap(uintptr_t at) {
    for (unsigned i = 0; i < now->maps; i++)
        if (now->mapped[i] && now->at[i] == at) {
            now->mapped[i] = false;
            return;
        }
    RL_ASSERT(!"mapped");
}

int main(int argc, char **argv) {
    return model::main_of<boot_model>(argc, argv,
                                      {"boot",
                                       {"base", "secrets", "sealed"},
                                       {},
                                       {"page/region.c", "page/region.h", "slab/seal.c", "slab/seal.h"},
                                       {3, 3, 3}});
}

/* model_os.cc -- os/os_linux.c as shipped: the one key of the thread-exit hook, which the first threads of a process create all at
 * once.
 *
 * covers: S125 C2
 */
#include "model/c.h"

#include <pthread.h>

#include "os/os.h"

enum { THREADS = 3, KEYS = 4 };

/* ---- the system ---- */

/* Relacy's names for these are taken back: nobody starts a thread here. */
#undef pthread_t
#undef pthread_attr_t
#undef pthread_create
#undef pthread_join
#define errno (*__errno_location())

static int create_key(pthread_key_t *key, void (*hook)(void *));
static int delete_key(pthread_key_t key);
static int set_value(pthread_key_t key, const void *value);
#define pthread_key_create  create_key
#define pthread_key_delete  delete_key
#define pthread_setspecific set_value

void gr_check_failed(const char *what, const char *, int) {
    rl::ctx().fail_test(what, rl::test_result_user_assert_failed, $);
    abort();
}

#include "os/os_linux.c"

/* ---- the model ---- */

struct os_model;
static os_model *now;
static void hook(void *) {}

struct os_model : model::suite<os_model, THREADS, 1, 1> {
    rl::var<unsigned> created[KEYS]; /* written by who creates a key */
    bool lives[KEYS];
    unsigned keys, refused;
    int used[THREADS];

    void set_up() {
        bind(&exit_key, 0);
        for (unsigned i = 0; i < KEYS; i++) {
            created[i]($) = 0;
            lives[i] = false;
        }
        for (auto &u : used)
            u = -1;
        keys = refused = 0;
        now = this;
    }
    void run(unsigned t) {
        char self;
        if (!os_at_thread_exit(hook, &self))
            RL_ASSERT(refused); /* no key to be had: nothing is placed */
        else if (t == 0)
            RL_ASSERT(os_at_thread_exit(hook, &self)); /* the same key again */
    }
    void check() {
        uint64_t kept = model::final_value(&exit_key);
        unsigned living = 0;
        for (unsigned i = 0; i < KEYS; i++)
            living += lives[i];
        RL_ASSERT(living == (kept != 0) && (!kept || lives[kept - 1]));
        for (int u : used)
            RL_ASSERT(u < 0 || (unsigned)u == kept - 1);
    }
};

static int create_key(pthread_key_t *key, void (*with)(void *)) {
    RL_ASSERT(with == hook && now->keys < KEYS);
    if (model::program == 1 && rl::rand(2)) {
        now->refused++;
        return EAGAIN;
    }
    *key = now->keys++;
    now->created[*key]($) = 1;
    now->lives[*key] = true;
    return 0;
}
static int delete_key(pthread_key_t key) {
    RL_ASSERT(now->lives[key]);
    now->lives[key] = false;
    return 0;
}
static int set_value(pthread_key_t key, const void *) {
    RL_ASSERT(key < now->keys && now->lives[key]);
    now->created[key]($).load();
    now->used[rl::thread_index()] = (int)key;
    return 0;
}

int main(int argc, char **argv) {
    return model::main_of<os_model>(argc, argv, {"os", {"key", "refused"}, {}, {"os/os_linux.c"}, {3, 3}});
}

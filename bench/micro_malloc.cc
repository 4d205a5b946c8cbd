/* micro_malloc.cc -- the micro benchmarks over the process's malloc. It links no allocator, so LD_PRELOAD
 * decides:
 *
 *   LD_PRELOAD=libgranary.so.1 ./micro_malloc --benchmark_filter=pair
 *
 * The context lines say which file malloc was found in.
 */
#include "micro_cases.h"

#include <dlfcn.h>

namespace {

struct process_heap {
    static void *alloc(std::size_t size) { return std::malloc(size); }
    static void *zalloc(std::size_t count, std::size_t size) { return std::calloc(count, size); }
    static void *resize(void *p, std::size_t size) { return std::realloc(p, size); }
    static void release(void *p) { std::free(p); }

    static void *aligned(std::size_t alignment, std::size_t size) {
        void *p = nullptr;
        return posix_memalign(&p, alignment, size) == 0 ? p : nullptr;
    }
};

const char *malloc_file() {
    Dl_info info;
    return dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) && info.dli_fname ? info.dli_fname : "?";
}

} // namespace

int main(int argc, char **argv) {
    benchmark::AddCustomContext("malloc", malloc_file());
    return micro::run_all<process_heap>(argc, argv);
}

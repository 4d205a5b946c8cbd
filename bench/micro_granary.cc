/* micro_granary.cc -- the micro benchmarks over the prefixed calls, linked statically: what the library costs
 * without a jump through the PLT, and without replacing the malloc that the benchmark's own machinery uses.
 */
#include "micro_cases.h"

#include <granary.h>

namespace {

struct granary_heap {
    static void *alloc(std::size_t size) { return granary_malloc(size); }
    static void *zalloc(std::size_t count, std::size_t size) { return granary_calloc(count, size); }
    static void *resize(void *p, std::size_t size) { return granary_realloc(p, size); }
    static void release(void *p) { granary_free(p); }
    static void *aligned(std::size_t alignment, std::size_t size) { return granary_aligned_alloc(alignment, size); }
};

} // namespace

int main(int argc, char **argv) {
    benchmark::AddCustomContext("malloc", granary_version());
    return micro::run_all<granary_heap>(argc, argv);
}

/* micro_cases.h -- the cases of the micro benchmarks, over any set of allocation functions.
 *
 * PURPOSE     Cost of one verb at a time, in nanoseconds, one thread or a few, warm. What whole shapes of
 *             use cost is the business of bench/load_*; a micro benchmark says which verb moved.
 *
 * A heap is a type with static functions of the names malloc has, so that micro_malloc.cc (the process's own)
 * and micro_granary.cc (the prefixed calls) run the same code. Every block is written to, as a user would.
 */
#ifndef MICRO_CASES_H
#define MICRO_CASES_H

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace micro {

constexpr int batch_blocks = 64;

/* Writes a byte and keeps the compiler from knowing that nobody reads it. */
inline void use(void *p) {
    *static_cast<volatile char *>(p) = 1;
    benchmark::DoNotOptimize(p);
}

/* malloc and free at once. Argument: the size. */
template <class Heap> void pair(benchmark::State &state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    for (auto _ : state) {
        void *p = Heap::alloc(size);
        use(p);
        Heap::release(p);
    }
    state.SetItemsProcessed(state.iterations());
}

/* 64 mallocs, then 64 frees in the same order; an item is one pair. Argument: the size. */
template <class Heap> void batch(benchmark::State &state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    void *block[batch_blocks];
    for (auto _ : state) {
        for (void *&p : block) {
            p = Heap::alloc(size);
            use(p);
        }
        for (void *p : block)
            Heap::release(p);
    }
    state.SetItemsProcessed(state.iterations() * batch_blocks);
}

/* free and malloc of random sizes of 16 to 1024 bytes in a set that fits the first-level cache. */
template <class Heap> void mixed(benchmark::State &state) {
    void *block[batch_blocks];
    std::uint32_t seed = 1;
    for (void *&p : block)
        p = Heap::alloc(16);
    for (auto _ : state) {
        seed = seed * 1664525u + 1013904223u;
        void *&p = block[seed >> 26];
        Heap::release(p);
        p = Heap::alloc(16 + (seed >> 10) % 1009);
        use(p);
    }
    for (void *p : block)
        Heap::release(p);
    state.SetItemsProcessed(state.iterations());
}

/* calloc and free. Argument: the size. */
template <class Heap> void zeroed(benchmark::State &state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    for (auto _ : state) {
        void *p = Heap::zalloc(1, size);
        use(p);
        Heap::release(p);
    }
    state.SetItemsProcessed(state.iterations());
}

/* realloc to a size one byte smaller and back: the block need not move. Argument: the size. */
template <class Heap> void resize_in_place(benchmark::State &state) {
    const auto size = static_cast<std::size_t>(state.range(0));
    void *p = Heap::alloc(size);
    for (auto _ : state) {
        p = Heap::resize(p, size - 1);
        use(p);
        p = Heap::resize(p, size);
        use(p);
    }
    Heap::release(p);
    state.SetItemsProcessed(2 * state.iterations());
}

/* realloc from 16 bytes by doubling to the argument, then free; an item is one realloc. */
template <class Heap> void resize_by_doubling(benchmark::State &state) {
    const auto last = static_cast<std::size_t>(state.range(0));
    std::int64_t calls = 0;
    for (auto _ : state) {
        void *p = Heap::alloc(16);
        for (std::size_t size = 32; size <= last; size *= 2, calls++) {
            p = Heap::resize(p, size);
            use(p);
        }
        Heap::release(p);
    }
    state.SetItemsProcessed(calls);
}

/* An aligned block and its free. Arguments: the alignment, the size. */
template <class Heap> void aligned(benchmark::State &state) {
    const auto alignment = static_cast<std::size_t>(state.range(0));
    const auto size = static_cast<std::size_t>(state.range(1));
    for (auto _ : state) {
        void *p = Heap::aligned(alignment, size);
        if (reinterpret_cast<std::uintptr_t>(p) % alignment != 0) {
            state.SkipWithError("not aligned");
            return;
        }
        use(p);
        Heap::release(p);
    }
    state.SetItemsProcessed(state.iterations());
}

template <class Heap> void register_all() {
    const auto add = [](const char *name, void (*run)(benchmark::State &)) {
        return benchmark::RegisterBenchmark(name, run);
    };
    const auto sizes = {16, 64, 256, 1024, 8 << 10, 32 << 10, 256 << 10, 1 << 20};

    auto *pairs = add("pair", pair<Heap>);
    auto *batches = add("batch", batch<Heap>);
    auto *in_place = add("resize_in_place", resize_in_place<Heap>);
    for (int size : sizes) {
        pairs->Arg(size);
        in_place->Arg(size);
        if (size <= 32 << 10)
            batches->Arg(size);
    }
    add("pair_threads", pair<Heap>)->Arg(64)->ThreadRange(1, 8)->UseRealTime();
    add("batch_threads", batch<Heap>)->Arg(64)->ThreadRange(1, 8)->UseRealTime();
    add("mixed", mixed<Heap>);
    add("zeroed", zeroed<Heap>)->Arg(16)->Arg(256)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20);
    add("resize_by_doubling", resize_by_doubling<Heap>)->Arg(1024)->Arg(64 << 10)->Arg(1 << 20);
    add("aligned", aligned<Heap>)->Args({64, 64})->Args({64, 1000})->Args({4096, 100})->Args({1 << 16, 4096});
}

template <class Heap> int run_all(int argc, char **argv) {
    register_all<Heap>();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}

} // namespace micro

#endif

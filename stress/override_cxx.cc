// override_cxx.cc -- operator new and delete: all of them are ours, and do as the C++ standard says. Replacement by
// the program is in override_cxx_replace.cc.
//
// covers: S18 S31 S32 S33 S34 S35 S36 S37 S38 S39 S40 S136

#include "test.h"

#include <dlfcn.h>
#include <granary.h>
#include <malloc.h>

#include <algorithm>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::align_val_t k_align_64{64};

// ---- 40: blocks from before main, freed after it ----

struct Early {
    std::string *text = new std::string(1000, 'e');
    std::vector<int> numbers = std::vector<int>(50000, 7);
    ~Early() {
        must(text->size() == 1000 && (*text)[999] == 'e');
        delete text;
        numbers.resize(200000);
        free(malloc(100));
    }
} early __attribute__((init_priority(101)));

void semantics_040_blocks_from_before_main(void **) {
    assert_int_equal(early.text->size(), 1000);
    assert_int_equal(early.numbers[49999], 7);
    static std::vector<std::string> late(1000, std::string(100, 'x')); // freed after main
    assert_int_equal(late[999].size(), 100);
}

// ---- 31 ----

const char *const k_operators[] = {
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
};

void semantics_031_all_operators_are_ours(void **) {
    if (strcmp(STRESS_VARIANT, "archive") == 0) {
        skip(); // an executable does not show its symbols
    }
    for (const char *name : k_operators) {
        Dl_info info;
        void *at = dlsym(RTLD_DEFAULT, name);
        if (at == nullptr || dladdr(at, &info) == 0 || strstr(info.dli_fname, "libgranary") == nullptr) {
            fail_msg("%s is not ours", name);
        }
    }
}

// ---- 32, 33: handlers ----

const size_t k_too_large = PTRDIFF_MAX;
int handler_calls;

void handler_that_gives_up_at_three() {
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

void handler_that_throws() {
    handler_calls++;
    throw std::bad_alloc();
}

struct HandlerScope {
    explicit HandlerScope(std::new_handler handler) {
        handler_calls = 0;
        std::set_new_handler(handler);
    }
    ~HandlerScope() { std::set_new_handler(nullptr); }
};

// Each throwing form of new, asked for more than there is.
void *(*const k_throwing[])(size_t) = {
    [](size_t n) { return ::operator new(n); },
    [](size_t n) { return ::operator new[](n); },
    [](size_t n) { return ::operator new(n, k_align_64); },
    [](size_t n) { return ::operator new[](n, k_align_64); },
};
void *(*const k_nothrow[])(size_t) = {
    [](size_t n) { return ::operator new(n, std::nothrow); },
    [](size_t n) { return ::operator new[](n, std::nothrow); },
    [](size_t n) { return ::operator new(n, k_align_64, std::nothrow); },
    [](size_t n) { return ::operator new[](n, k_align_64, std::nothrow); },
};

bool throws_bad_alloc(void *(*make)(size_t), size_t size) {
    try {
        opaque(make(opaque_size(size)));
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

void semantics_018_032_new_throws_bad_alloc(void **) {
    for (auto make : k_throwing) {
        for (size_t k = 0; k < 100; k++) {
            must(throws_bad_alloc(make, SIZE_MAX - k));
            must(throws_bad_alloc(make, k_too_large + k));
        }
    }
}

void semantics_032_handlers_are_called_until_none_is_left(void **) {
    for (auto make : k_throwing) {
        HandlerScope scope(handler_that_gives_up_at_three);
        must(throws_bad_alloc(make, k_too_large));
        must(handler_calls == 3);
    }
    for (auto make : k_throwing) {
        HandlerScope scope(handler_that_throws);
        must(throws_bad_alloc(make, k_too_large));
        must(handler_calls == 1);
    }
}

// A handler that makes room: what was refused before succeeds in the same call. In a child of limited address space.
void *hoard;

void handler_that_makes_room() {
    handler_calls++;
    free(hoard);
    hoard = nullptr;
    if (handler_calls > 1) {
        std::set_new_handler(nullptr);
    }
}

int retry_after_room_was_made(void *) {
    size_t limit = vsz_bytes() + 300 * MIB;
    struct rlimit address_space = {limit, limit};
    must(setrlimit(RLIMIT_AS, &address_space) == 0);
    hoard = malloc(200 * MIB);
    must(hoard != nullptr);
    HandlerScope scope(handler_that_makes_room);
    void *ptr = ::operator new(180 * MIB);
    must(ptr != nullptr && handler_calls == 1);
    ::operator delete(ptr);
    return 0;
}

void semantics_032_retry_after_the_handler_made_room(void **) {
    must_end_well(in_child(retry_after_room_was_made, nullptr, 20), "new_handler");
}

// ---- 136: whom operator new asks, and in which order ----

char order[16]; // c: the callback, h: the handler
void ask(char whom) { order[strlen(order)] = whom; }

int callback_that_refuses(size_t size, void *) {
    must(size == 180 * MIB);
    ask('c');
    return 0;
}

int callback_that_makes_room(size_t, void *) {
    ask('c');
    free(hoard);
    hoard = nullptr;
    return 1;
}

void handler_that_follows() {
    ask('h');
    free(hoard);
    hoard = nullptr;
}

// Preloaded it is not there when the program is linked, in an archive not when dlsym looks.
extern "C" __attribute__((weak)) const struct granary_oom_callback *
granary_set_oom_callback(const struct granary_oom_callback *callback);

void set_callback(int (*call)(size_t, void *)) {
    static granary_oom_callback all[2];
    static unsigned next;
    granary_oom_callback *one = &all[next++ % 2];
    one->call = call;
    auto *set = (decltype(&granary_set_oom_callback))dlsym(RTLD_DEFAULT, "granary_set_oom_callback");
    set = set ? set : granary_set_oom_callback;
    must(set != nullptr);
    set(one);
}

int callback_before_handler(void *) {
    size_t limit = vsz_bytes() + 300 * MIB;
    struct rlimit address_space = {limit, limit};
    must(setrlimit(RLIMIT_AS, &address_space) == 0);
    for (size_t i = 0; i < COUNT_OF(k_throwing) + COUNT_OF(k_nothrow); i++) {
        auto make = i < COUNT_OF(k_throwing) ? k_throwing[i] : k_nothrow[i - COUNT_OF(k_throwing)];
        for (bool refuses : {true, false}) {
            memset(order, 0, sizeof order);
            hoard = malloc(200 * MIB);
            must(hoard != nullptr);
            HandlerScope scope(handler_that_follows);
            set_callback(refuses ? callback_that_refuses : callback_that_makes_room);
            void *ptr = make(opaque_size(180 * MIB));
            must(ptr != nullptr && strcmp(order, refuses ? "ch" : "c") == 0);
            free(ptr);
        }
    }
    return 0;
}

void semantics_136_the_callback_is_asked_once_before_the_handler(void **) {
    must_end_well(in_child(callback_before_handler, nullptr, 20), "granary_set_oom_callback");
}

void semantics_033_nothrow_forms_return_null(void **) {
    for (auto make : k_nothrow) {
        must(make(opaque_size(k_too_large)) == nullptr);
        {
            HandlerScope scope(handler_that_gives_up_at_three);
            must(make(opaque_size(k_too_large)) == nullptr);
            must(handler_calls == 3);
        }
        HandlerScope scope(handler_that_throws);
        must(make(opaque_size(k_too_large)) == nullptr);
        must(handler_calls == 1);
    }
}

// ---- 34-36: arrays, alignments, sizes ----

void semantics_034_array_lengths_that_overflow(void **) {
    struct Item {
        char bytes[48];
    };
    size_t count = opaque_size(SIZE_MAX / 16);
    bool caught = false;
    try {
        opaque(new Item[count]);
    } catch (const std::bad_array_new_length &) {
        caught = true;
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    assert_true(caught);
    void *first = opaque(::operator new(0));
    void *second = opaque(::operator new[](0));
    assert_true(first != nullptr && second != nullptr && first != second);
    ::operator delete(first);
    ::operator delete[](second);
}

void semantics_035_alignments(void **) {
    for (size_t a = 1; a <= 16 * MIB; a *= 2) {
        const auto align = static_cast<std::align_val_t>(a);
        for (size_t n : {size_t(0), size_t(1), size_t(100), a, a + 1, size_t(70000)}) {
            void *blocks[6] = {::operator new(n, align),
                               ::operator new[](n, align),
                               ::operator new(n, align),
                               ::operator new[](n, align),
                               ::operator new(n, align, std::nothrow),
                               ::operator new[](n, align, std::nothrow)};
            for (void *block : blocks) {
                must(block != nullptr && is_aligned(opaque(block), a));
                memset(block, 0x5a, n);
            }
            ::operator delete(blocks[0], align);
            ::operator delete[](blocks[1], align);
            ::operator delete(blocks[2], n, align);
            ::operator delete[](blocks[3], n, align);
            ::operator delete(blocks[4], align, std::nothrow);
            ::operator delete[](blocks[5], align, std::nothrow);
        }
    }
}

void semantics_036_sized_delete(void **) {
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, size_t(100));
    ::operator delete[](nullptr, size_t(0));
    ::operator delete(nullptr, k_align_64);
    ::operator delete(nullptr, size_t(100), k_align_64);
    ::operator delete(nullptr, std::nothrow);
    void *probe = malloc(1);
    for (size_t n = 0; n <= MIB; n = std::max(malloc_usable_size(probe), n + n / 16) + 1) {
        free(probe);
        probe = malloc(n);
        for (size_t near : {n ? n - 1 : 0, n, n + 1}) {
            ::operator delete(::operator new(near), near);
            ::operator delete[](::operator new[](near), near);
            ::operator delete(::operator new(near), std::nothrow);
        }
    }
    free(probe);
    malloc_trim(0); // a size noted wrongly would be found now
}

// Families mixed are a misuse that granary does not look for: they work.
void semantics_112_mixed_families_are_accepted(void **) {
    free(::operator new(100));
    free(::operator new[](100));
    free(::operator new(100, k_align_64));
    ::operator delete(malloc(100));
    ::operator delete[](::operator new(100));
    ::operator delete(::operator new[](100), size_t(100));
    ::operator delete(aligned_alloc(64, 128), size_t(128), k_align_64);
    malloc_trim(0);
}

// ---- 38: exceptions when there is no memory at all ----

int throw_without_memory(void *) {
    size_t limit = vsz_bytes();
    struct rlimit address_space = {limit, limit};
    must(setrlimit(RLIMIT_AS, &address_space) == 0);
    void *chain = nullptr;
    for (size_t size : {size_t(MIB), size_t(64 * KIB), size_t(1024), size_t(128), size_t(16)}) {
        while (void *block = malloc(size)) {
            *static_cast<void **>(block) = chain;
            chain = block;
        }
    }
    int caught = 0;
    for (int i = 0; i < 100; i++) {
        try {
            opaque(::operator new(100));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        try {
            throw std::runtime_error(""); // its string and the exception itself need memory
        } catch (const std::exception &) {
            caught++;
        }
    }
    while (chain != nullptr) {
        void *next = *static_cast<void **>(chain);
        free(chain);
        chain = next;
    }
    delete new int;
    return caught == 200 ? 0 : 1;
}

void semantics_038_exceptions_without_memory(void **) {
    must_end_well(in_child(throw_without_memory, nullptr, 30), "bad_alloc without memory");
}

// ---- 39: the library on top ----

void work_with_strings(std::vector<std::string> *out) {
    std::pmr::vector<std::pmr::string> polymorphic(std::pmr::new_delete_resource());
    for (int i = 0; i < 20000; i++) {
        out->push_back(std::string(size_t(i % 200), char('a' + i % 26)));
        polymorphic.emplace_back(size_t(i % 300), 'p');
    }
    for (int i = 0; i < 20000; i++) {
        must((*out)[size_t(i)] == std::string(size_t(i % 200), char('a' + i % 26)));
    }
}

void semantics_039_strings_over_threads(void **) {
    std::vector<std::string> lists[4];
    std::vector<std::thread> threads;
    for (auto &list : lists) {
        threads.emplace_back(work_with_strings, &list);
    }
    for (auto &thread : threads) {
        thread.join();
    }
    std::vector<std::thread> freers; // freed in other threads than they were made in
    for (auto &list : lists) {
        freers.emplace_back([&list] { std::vector<std::string>().swap(list); });
    }
    for (auto &thread : freers) {
        thread.join();
    }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(semantics_018_032_new_throws_bad_alloc),
        cmocka_unit_test(semantics_031_all_operators_are_ours),
        cmocka_unit_test(semantics_032_handlers_are_called_until_none_is_left),
        cmocka_unit_test(semantics_032_retry_after_the_handler_made_room),
        cmocka_unit_test(semantics_136_the_callback_is_asked_once_before_the_handler),
        cmocka_unit_test(semantics_033_nothrow_forms_return_null),
        cmocka_unit_test(semantics_034_array_lengths_that_overflow),
        cmocka_unit_test(semantics_035_alignments),
        cmocka_unit_test(semantics_036_sized_delete),
        cmocka_unit_test(semantics_112_mixed_families_are_accepted),
        cmocka_unit_test(semantics_038_exceptions_without_memory),
        cmocka_unit_test(semantics_039_strings_over_threads),
        cmocka_unit_test(semantics_040_blocks_from_before_main),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}

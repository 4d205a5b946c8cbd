// override_cxx_replace.cc -- a program that replaces operator new and delete of one object and nothing else: the other
// forms go by way of its own, as the C++ standard says ([new.delete]).
//
// covers: S37

#include "test.h"

#include <malloc.h>

#include <new>
#include <string>
#include <vector>

namespace {

int news;
int deletes;
bool refuse;

struct Counts {
    int news_before = news;
    int deletes_before = deletes;
    bool are(int expected_news, int expected_deletes) const {
        return news - news_before == expected_news && deletes - deletes_before == expected_deletes;
    }
};

} // namespace

void *operator new(size_t size) {
    news++;
    void *ptr = refuse ? nullptr : malloc(size ? size : 1);
    if (ptr == nullptr) {
        throw std::bad_alloc();
    }
    return ptr;
}

void operator delete(void *ptr) noexcept {
    deletes++;
    free(ptr);
}

namespace {

void semantics_037_arrays_go_to_the_replaced_new(void **) {
    Counts counts;
    void *ptr = opaque(::operator new[](100));
    ::operator delete[](ptr);
    assert_true(counts.are(1, 1));
}

void semantics_037_nothrow_goes_to_the_replaced_new(void **) {
    Counts counts;
    void *single = opaque(::operator new(100, std::nothrow));
    void *array = opaque(::operator new[](100, std::nothrow));
    assert_true(single != nullptr && array != nullptr);
    ::operator delete(single, std::nothrow);
    ::operator delete[](array, std::nothrow);
    assert_true(counts.are(2, 2));
}

void semantics_037_nothrow_turns_the_exception_into_null(void **) {
    refuse = true;
    void *single = ::operator new(100, std::nothrow);
    void *array = ::operator new[](100, std::nothrow);
    refuse = false;
    assert_null(single);
    assert_null(array);
}

void semantics_037_sized_delete_goes_to_the_replaced_delete(void **) {
    Counts counts;
    ::operator delete(opaque(::operator new(100)), size_t(100));
    ::operator delete[](opaque(::operator new[](100)), size_t(100));
    assert_true(counts.are(2, 2));
}

void semantics_037_aligned_forms_stay_a_pair(void **) {
    Counts counts;
    void *ptr = ::operator new(100, std::align_val_t(256));
    assert_true(ptr != nullptr && is_aligned(opaque(ptr), 256));
    ::operator delete(ptr, std::align_val_t(256));
    ::operator delete(::operator new(100, std::align_val_t(256)), size_t(100), std::align_val_t(256));
    assert_true(counts.are(0, 0));
}

void semantics_037_the_library_uses_it_too(void **) {
    Counts counts;
    {
        std::vector<std::string> list;
        for (int i = 0; i < 100; i++) {
            list.push_back(std::string(100, 'x'));
        }
    }
    assert_true(news - counts.news_before >= 100);
    assert_int_equal(news - counts.news_before, deletes - counts.deletes_before);
    malloc_trim(0);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(semantics_037_arrays_go_to_the_replaced_new),
        cmocka_unit_test(semantics_037_nothrow_goes_to_the_replaced_new),
        cmocka_unit_test(semantics_037_nothrow_turns_the_exception_into_null),
        cmocka_unit_test(semantics_037_sized_delete_goes_to_the_replaced_delete),
        cmocka_unit_test(semantics_037_aligned_forms_stay_a_pair),
        cmocka_unit_test(semantics_037_the_library_uses_it_too),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}

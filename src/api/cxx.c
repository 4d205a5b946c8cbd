/* api/cxx.c -- operator new and delete, from C, without a C++ library.
 *
 * Under the names of the Itanium C++ ABI. Failure runs the new-handler until it gives up; then, where a C++ runtime is in the
 * process, std::bad_alloc is thrown through these frames, which are compiled with unwind tables. If the program replaced the
 * plain operator new or delete alone, the other forms call that one, as the standard has it ([replacement.functions]); a
 * nothrow form that has to catch an exception leaves that to the C++ library's own.
 */
#include "api/alloc.h"
#include "granary.h"
#include "os/fatal.h"
#include "os/os.h"

typedef void new_handler(void);
typedef void *new_nothrow(size_t, const void *);
extern GR_WEAK new_handler *_ZSt15get_new_handlerv(void);
extern GR_WEAK GR_NORETURN void _ZSt17__throw_bad_allocv(void);

/* constant after load */
static struct {
    void *(*replaced_new)(size_t);   /* the program's operator new(size_t), or NULL: it uses ours */
    void (*replaced_delete)(void *); /* likewise operator delete(void *) */
    new_nothrow *library_nothrow;    /* the C++ library's, behind ours */
} cxx;

/* ---- new ---- */

static void *allocate(size_t n, size_t align) {
    return align <= MIN_ALIGN ? granary_malloc(n) : granary_aligned_alloc(align, n);
}

GR_COLD static void *new_slow(size_t n, size_t align) {
    for (;;) {
        void *p = allocate(n, align);
        if (p)
            return p;
        new_handler *handler = _ZSt15get_new_handlerv ? _ZSt15get_new_handlerv() : NULL;
        if (handler) {
            handler();
            continue;
        }
        if (!_ZSt17__throw_bad_allocv)
            gr_fatal("out of memory in operator new, and no C++ runtime to throw std::bad_alloc");
        _ZSt17__throw_bad_allocv();
    }
}

GR_COLD static void *nothrow_slow(size_t n, size_t align, const void *tag) {
    void *p = cxx.replaced_new && align <= MIN_ALIGN ? NULL : allocate(n, align);
    if (p)
        return p;
    /* A handler may run, and may throw; the program's own operator new may throw. */
    if (cxx.library_nothrow && align <= MIN_ALIGN)
        return cxx.library_nothrow(n, tag);
    while (_ZSt15get_new_handlerv && _ZSt15get_new_handlerv()) {
        _ZSt15get_new_handlerv()();
        if ((p = allocate(n, align)))
            return p;
    }
    return NULL;
}

/* A hit in the smallest classes; anything else is NULL. */
GR_INLINE void *new_fast(size_t n) {
    struct cache *self = gr_self;
    return GR_LIKELY(n <= LINEAR_MAX_BYTES) ? cache_pop_owner(self, self->class_by_16[(n + 15) / 16]) : NULL;
}

GR_EXPORT void *_Znwm(size_t n);
void *_Znwm(size_t n) {
    void *p = new_fast(n);
    return GR_LIKELY(p != NULL) ? p : new_slow(n, 1);
}

GR_EXPORT void *_Znam(size_t n);
void *_Znam(size_t n) {
    if (GR_UNLIKELY(cxx.replaced_new != NULL))
        return cxx.replaced_new(n);
    void *p = new_fast(n);
    return GR_LIKELY(p != NULL) ? p : new_slow(n, 1);
}

GR_EXPORT void *_ZnwmRKSt9nothrow_t(size_t n, const void *tag);
void *_ZnwmRKSt9nothrow_t(size_t n, const void *tag) {
    void *p = cxx.replaced_new ? NULL : new_fast(n);
    return GR_LIKELY(p != NULL) ? p : nothrow_slow(n, 1, tag);
}
GR_EXPORT void *_ZnamRKSt9nothrow_t(size_t n, const void *tag) GR_ALIAS(_ZnwmRKSt9nothrow_t);

GR_EXPORT void *_ZnwmSt11align_val_t(size_t n, size_t align);
void *_ZnwmSt11align_val_t(size_t n, size_t align) { return new_slow(n, align); }
GR_EXPORT void *_ZnamSt11align_val_t(size_t n, size_t align) GR_ALIAS(_ZnwmSt11align_val_t);

GR_EXPORT void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t n, size_t align, const void *tag);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t n, size_t align, const void *tag) {
    return nothrow_slow(n, align, tag);
}
GR_EXPORT void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t n, size_t align, const void *tag)
    GR_ALIAS(_ZnwmSt11align_val_tRKSt9nothrow_t);

/* ---- delete ---- */

GR_EXPORT void _ZdlPv(void *p);
void _ZdlPv(void *p) { api_free(p); }

GR_INLINE void delete_one(void *p) {
    if (GR_UNLIKELY(cxx.replaced_delete != NULL))
        cxx.replaced_delete(p);
    else
        api_free(p);
}

GR_EXPORT void _ZdaPv(void *p);
void _ZdaPv(void *p) { delete_one(p); }

GR_EXPORT void _ZdlPvRKSt9nothrow_t(void *p, const void *tag);
void _ZdlPvRKSt9nothrow_t(void *p, const void *tag) {
    (void)tag;
    delete_one(p);
}
GR_EXPORT void _ZdaPvRKSt9nothrow_t(void *p, const void *tag) GR_ALIAS(_ZdlPvRKSt9nothrow_t);

GR_EXPORT void _ZdlPvm(void *p, size_t n);
void _ZdlPvm(void *p, size_t n) {
    if (GR_UNLIKELY(cxx.replaced_delete != NULL))
        cxx.replaced_delete(p);
    else
        api_free_sized(p, n, "operator delete");
}
GR_EXPORT void _ZdaPvm(void *p, size_t n) GR_ALIAS(_ZdlPvm);

/* Aligned blocks come from classes of their own sizes: the page map says which. */
GR_EXPORT void _ZdlPvSt11align_val_t(void *p, size_t align);
void _ZdlPvSt11align_val_t(void *p, size_t align) {
    (void)align;
    api_free(p);
}
GR_EXPORT void _ZdaPvSt11align_val_t(void *p, size_t align) GR_ALIAS(_ZdlPvSt11align_val_t);

GR_EXPORT void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const void *tag);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const void *tag) {
    (void)align;
    (void)tag;
    api_free(p);
}
GR_EXPORT void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const void *tag)
    GR_ALIAS(_ZdlPvSt11align_val_tRKSt9nothrow_t);

GR_EXPORT void _ZdlPvmSt11align_val_t(void *p, size_t n, size_t align);
void _ZdlPvmSt11align_val_t(void *p, size_t n, size_t align) { gr_free_sized_slow(p, n, align, "operator delete"); }
GR_EXPORT void _ZdaPvmSt11align_val_t(void *p, size_t n, size_t align) GR_ALIAS(_ZdlPvmSt11align_val_t);

/* ---- who replaced what ---- */

GR_CTOR static void at_load(void) {
    if (!_ZSt15get_new_handlerv)
        return; /* no C++ in this process yet */
    void *found = os_symbol("_Znwm"), *ours = (void *)_Znwm;
    if (found && found != ours)
        cxx.replaced_new = (void *(*)(size_t))found;
    found = os_symbol("_ZdlPv");
    ours = (void *)_ZdlPv;
    if (found && found != ours)
        cxx.replaced_delete = (void (*)(void *))found;
    cxx.library_nothrow = (new_nothrow *)os_next_symbol("_ZnwmRKSt9nothrow_t");
}

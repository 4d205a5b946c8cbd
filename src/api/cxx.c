/* api/cxx.c -- operator new and delete, from C, without a C++ library.
 *
 * Under the names of the Itanium C++ ABI. Failure runs the new-handler until it gives up; then, where a C++ runtime is in the
 * process, std::bad_alloc is thrown through these frames, which are compiled with unwind tables. If the program replaced the
 * plain operator new or delete alone, the other forms call that one, as the standard has it ([replacement.functions]); a
 * nothrow form that has to catch an exception leaves that to the C++ library's own.
 */
#include "api/alloc.h"
#include "api/oom.h"
#include "granary.h"
#include "os/fatal.h"
#include "os/os.h"

typedef void new_handler(void);
typedef void *new_nothrow(size_t, const void *);
typedef void *new_nothrow_aligned(size_t, size_t, const void *);
extern GR_WEAK new_handler *_ZSt15get_new_handlerv(void);
extern GR_WEAK GR_NORETURN void _ZSt17__throw_bad_allocv(void);

/* The operators are weak: in a static program the program's own take their place. */
#define SAME_AS(of) __attribute__((weak, alias(#of), visibility("default")))

/* constant after load */
static struct {
    void *(*replaced_new)(size_t);   /* the program's operator new(size_t), or NULL: it uses ours */
    void (*replaced_delete)(void *); /* likewise operator delete(void *); ours: look for guarded blocks */
    new_nothrow *library_nothrow;    /* the C++ library's, behind ours */
    new_nothrow_aligned *library_nothrow_aligned;
} cxx;

/* ---- new ---- */

static void *allocate(size_t n, size_t align) {
    return align <= MIN_ALIGN ? granary_malloc(n) : granary_aligned_alloc(align, n);
}

/* It was refused once, by whoever was asked. */
GR_NOINLINE static void *new_refused(size_t n, size_t align) {
    for (;;) {
        new_handler *handler = _ZSt15get_new_handlerv ? _ZSt15get_new_handlerv() : NULL;
        if (handler) {
            handler();
            void *p = allocate(n, align);
            if (p)
                return p;
            continue;
        }
        if (!_ZSt17__throw_bad_allocv)
            gr_fatal("out of memory in operator new, and no C++ runtime to throw std::bad_alloc");
        _ZSt17__throw_bad_allocv();
    }
}

GR_NOINLINE static void *new_slow(size_t n, size_t align) {
    GR_KEEP_FRAME();
    void *p = allocate(n, align);
    return p ? p : new_refused(n, align);
}

/* Hardened: what api_pop does is all of malloc. */
GR_INLINE void *new_missed(size_t n) { return HARDENED ? new_refused(n, 1) : new_slow(n, 1); }

/* If it fails another form is called, which asks. */
static void *allocate_quietly(size_t n, size_t align) {
    struct quiet trying;
    quiet_begin(&trying);
    void *p = allocate(n, align);
    quiet_end(&trying);
    return p;
}

GR_NOINLINE static void *nothrow_slow(size_t n, size_t align, const void *tag) {
    GR_KEEP_FRAME();
    bool library = align <= MIN_ALIGN ? cxx.library_nothrow != NULL : cxx.library_nothrow_aligned != NULL;
    void *p = NULL;
    if (!cxx.replaced_new || align > MIN_ALIGN)
        p = library ? allocate_quietly(n, align) : allocate(n, align);
    if (p)
        return p;
    /* A handler may run, and may throw; the program's own operator new may throw. */
    if (align <= MIN_ALIGN && cxx.library_nothrow)
        return cxx.library_nothrow(n, tag);
    if (align > MIN_ALIGN && cxx.library_nothrow_aligned)
        return cxx.library_nothrow_aligned(n, align, tag);
    while (_ZSt15get_new_handlerv && _ZSt15get_new_handlerv()) {
        _ZSt15get_new_handlerv()();
        if ((p = allocate(n, align)))
            return p;
    }
    return NULL;
}

/* Ours under names that nobody replaces, so that we know who was replaced. */
static void *own_new(size_t n) {
    void *p = api_pop(n);
    return GR_LIKELY(p != NULL) ? p : new_missed(n);
}

static void own_delete(void *p) { api_free(p); }

static void *new_array(size_t n) {
    if (GR_UNLIKELY(cxx.replaced_new != NULL))
        return cxx.replaced_new(n);
    void *p = api_pop(n);
    return GR_LIKELY(p != NULL) ? p : new_missed(n);
}

static void *new_nothrow_any(size_t n, const void *tag) {
    void *p = HARDENED || cxx.replaced_new ? NULL : api_pop(n);
    return GR_LIKELY(p != NULL) ? p : nothrow_slow(n, 1, tag);
}

static void delete_any(void *p) {
    if (GR_UNLIKELY(cxx.replaced_delete != NULL))
        cxx.replaced_delete(p);
    else
        api_free(p);
}

static void delete_nothrow(void *p, const void *tag) {
    (void)tag;
    delete_any(p);
}

GR_NOINLINE static void delete_sized_otherwise(void *p, size_t n) {
    if (cxx.replaced_delete == own_delete)
        gr_free_sized_looking(p, n, "operator delete");
    else
        cxx.replaced_delete(p);
}

static void delete_sized(void *p, size_t n) {
    if (GR_UNLIKELY(cxx.replaced_delete != NULL))
        delete_sized_otherwise(p, n);
    else
        api_free_sized(p, n, "operator delete");
}

/* Aligned blocks come from classes of their own sizes: the page map says which. */
static void delete_aligned(void *p, size_t align) {
    (void)align;
    api_free(p);
}

static void delete_aligned_nothrow(void *p, size_t align, const void *tag) {
    (void)align;
    (void)tag;
    api_free(p);
}

static void delete_sized_aligned(void *p, size_t n, size_t align) {
    gr_free_sized_slow(p, n, align, "operator delete");
}

/* ---- the 20 replaceable names: w, a: new, new[]; dl, da: delete, delete[]; m: size_t ---- */

void *_Znwm(size_t n) SAME_AS(own_new);
void *_Znam(size_t n) SAME_AS(new_array);
void *_ZnwmRKSt9nothrow_t(size_t n, const void *tag) SAME_AS(new_nothrow_any);
void *_ZnamRKSt9nothrow_t(size_t n, const void *tag) SAME_AS(new_nothrow_any);
void *_ZnwmSt11align_val_t(size_t n, size_t align) SAME_AS(new_slow);
void *_ZnamSt11align_val_t(size_t n, size_t align) SAME_AS(new_slow);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t n, size_t align, const void *tag) SAME_AS(nothrow_slow);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t n, size_t align, const void *tag) SAME_AS(nothrow_slow);
void _ZdlPv(void *p) SAME_AS(own_delete);
void _ZdaPv(void *p) SAME_AS(delete_any);
void _ZdlPvRKSt9nothrow_t(void *p, const void *tag) SAME_AS(delete_nothrow);
void _ZdaPvRKSt9nothrow_t(void *p, const void *tag) SAME_AS(delete_nothrow);
void _ZdlPvm(void *p, size_t n) SAME_AS(delete_sized);
void _ZdaPvm(void *p, size_t n) SAME_AS(delete_sized);
void _ZdlPvSt11align_val_t(void *p, size_t align) SAME_AS(delete_aligned);
void _ZdaPvSt11align_val_t(void *p, size_t align) SAME_AS(delete_aligned);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const void *tag) SAME_AS(delete_aligned_nothrow);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const void *tag) SAME_AS(delete_aligned_nothrow);
void _ZdlPvmSt11align_val_t(void *p, size_t n, size_t align) SAME_AS(delete_sized_aligned);
void _ZdaPvmSt11align_val_t(void *p, size_t n, size_t align) SAME_AS(delete_sized_aligned);

GR_CTOR static void at_load(void) {
    gr_load();
    if (guarded_in_use())
        cxx.replaced_delete = own_delete;
    if (!_ZSt15get_new_handlerv)
        return; /* no C++ in this process yet */
    if (_Znwm != own_new)
        cxx.replaced_new = _Znwm;
    if (_ZdlPv != own_delete)
        cxx.replaced_delete = _ZdlPv;
    cxx.library_nothrow = (new_nothrow *)os_next_symbol("_ZnwmRKSt9nothrow_t");
    cxx.library_nothrow_aligned = (new_nothrow_aligned *)os_next_symbol("_ZnwmSt11align_val_tRKSt9nothrow_t");
}

"""gcc: a C and a C++ program at -O2, and with link time optimisation; the assembly must agree and the
programs run."""
PACKAGES = ("gcc", "g++", "libc6-dev")
NEEDS = ("gcc", "g++")
PROVEN = ("gcc", "cc1", "cc1plus", "as", "lto1", "c_program", "cxx_program")
MEASURED = ("gcc", "cc1", "cc1plus", "as")
LIMIT = 180

C_SOURCE = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *left, *right;
    int key, count;
    char *name;
};

static struct node *insert(struct node *at, int key) {
    if (at == NULL) {
        at = calloc(1, sizeof *at);
        at->key = key;
        at->name = malloc(16);
        snprintf(at->name, 16, "node %d", key);
    }
    if (key < at->key)
        at->left = insert(at->left, key);
    else if (key > at->key)
        at->right = insert(at->right, key);
    else
        at->count++;
    return at;
}
static unsigned sum(const struct node *at) {
    return at == NULL ? 0
                      : (unsigned)(at->key * at->count) + (unsigned)strlen(at->name) + sum(at->left) + sum(at->right);
}
static void drop(struct node *at) {
    if (at != NULL) {
        drop(at->left);
        drop(at->right);
        free(at->name);
        free(at);
    }
}
static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void *work(void *seed_pointer) {
    unsigned seed = *(unsigned *)seed_pointer, state = seed, total = 0;
    for (int round = 0; round < 4; round++) {
        struct node *root = NULL;
        for (int i = 0; i < 20000; i++) {
            state = state * 1103515245u + 12345u;
            root = insert(root, (int)(state >> 16) % 5000);
        }
        total += sum(root);
        drop(root);
        size_t used = 0, room = 0;
        char **lines = NULL;
        for (int i = 0; i < 5000; i++) {
            if (used == room)
                lines = realloc(lines, (room = room ? room * 2 : 4) * sizeof *lines);
            state = state * 1103515245u + 12345u;
            lines[used] = malloc(state % 200 + 20);
            sprintf(lines[used++], "%08x", state);
        }
        qsort(lines, used, sizeof *lines, compare);
        for (size_t i = 0; i < used; i++) {
            total = total * 31 + (unsigned char)lines[i][3];
            free(lines[i]);
        }
        free(lines);
    }
    *(unsigned *)seed_pointer = total;
    return NULL;
}
MANY_FUNCTIONS
int main(void) {
    unsigned seeds[4] = {1, 22, 333, 4444};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, &seeds[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        printf("thread %u\n", seeds[i]);
    }
    unsigned all = 0;
    for (int i = 0; i < COUNT; i++)
        all += functions[i]((unsigned)i);
    printf("functions %u\n", all);
    return 0;
}
"""

CXX_SOURCE = r"""
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct shape {
    std::map<std::string, std::vector<std::unique_ptr<shape<N - 1>>>> parts;
    long size() const {
        long n = N;
        for (auto &p : parts)
            for (auto &q : p.second)
                n += q->size() + (long)p.first.size();
        return n;
    }
    explicit shape(int seed) {
        for (int i = 0; i < 3; i++)
            parts["part" + std::to_string(seed * i % 7)].push_back(std::make_unique<shape<N - 1>>(seed + i));
    }
};
template <> struct shape<0> {
    explicit shape(int) {}
    long size() const { return 1; }
};
struct alignas(64) padded {
    long value;
};

static long worker(int n) {
    std::unordered_map<std::string, std::variant<long, std::string, std::vector<int>>> store;
    for (int i = 0; i < 20000; i++) {
        auto &slot = store["key" + std::to_string(i * n % 7001)];
        if (i % 3 == 0)
            slot = std::string(size_t(i % 90), 'x');
        else if (i % 3 == 1)
            slot = long(i);
        else
            slot = std::vector<int>(size_t(i % 50), i);
    }
    long total = 0;
    for (auto &[key, value] : store)
        total += std::visit(
            [](auto &v) -> long {
                using T = std::decay_t<decltype(v)>;
                if constexpr (std::is_same_v<T, long>)
                    return v;
                else
                    return (long)v.size();
            },
            value);
    for (int i = 0; i < 2000; i++) {
        try {
            if (i % 2)
                throw std::runtime_error("trouble " + std::to_string(i));
        } catch (const std::exception &e) {
            total += (long)std::string(e.what()).size();
        }
        std::unique_ptr<padded[]> p(new padded[size_t(i % 9 + 1)]);
        if (reinterpret_cast<size_t>(p.get()) % 64)
            std::abort();
    }
    return total;
}

int main() {
    std::cout << "shape " << shape<5>(3).size() << '\n';
    std::ostringstream text;
    for (int i = 0; i < 3000; i++)
        text << "item" << i << '=' << i * 7 % 1000 << ' ';
    std::istringstream parts(text.str());
    long sum = 0;
    for (std::string part; parts >> part;)
        sum += std::stol(part.substr(part.find('=') + 1)) * long(part.size());
    std::cout << "stream " << sum << '\n';
    std::vector<long> results(6);
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; i++)
        threads.emplace_back([&results, i] { results[size_t(i)] = worker(i + 3); });
    for (auto &t : threads)
        t.join();
    for (long r : results)
        std::cout << "worker " << r << '\n';
    std::set<std::string> names;
    for (int i = 0; i < 50000; i++)
        names.insert("n" + std::to_string(i * 7919L % 30011));
    std::vector<std::function<std::string()>> calls;
    for (auto &n : names)
        calls.push_back([copy = n] { return copy + copy; });
    std::stable_sort(calls.begin(), calls.end(), [](auto &a, auto &b) { return a().back() < b().back(); });
    std::cout << "calls " << calls.size() << ' ' << calls.front()() << ' ' << calls.back()() << std::endl;
}
"""


FUNCTION = """
static unsigned f{i}(unsigned x) {{
    unsigned a[{i} % 5 + 4], s = {i};
    for (unsigned i = 0; i < {i} % 5 + 4; i++)
        a[i] = (x + i) * {odd}u;
    switch (x % ({i} % 7 + 2)) {{
    case 0: s += a[1] ^ a[2]; break;
    case 1: s -= a[3]; break;
    default: s = s * a[0] + {i};
    }}
    while (s > {i} * 977 + 100000u)
        s /= {i} % 3 + 3;
    return s;
}}
"""


def c_source(count=60):
    """The C program with `count` functions more, each a little different, that no folding makes one."""
    functions = "".join(FUNCTION.format(i=i, odd=2 * i + 1) for i in range(count))
    table = ", ".join(f"f{i}" for i in range(count))
    return C_SOURCE.replace(
        "MANY_FUNCTIONS",
        f"{functions}#define COUNT {count}\nstatic unsigned (*const functions[])(unsigned) = {{{table}}};",
    )


def compile_and_run(run, c_compiler, cxx_compiler, last):
    """Both programs by way of their assembly, and the C one once more with the flags `last`; returns what
    all said."""
    run.write("c_program.c", c_source())
    run.write("cxx_program.cc", CXX_SOURCE)
    said = []
    for line, source in (
        (f"{c_compiler} -std=c11 -g", "c_program.c"),
        (f"{cxx_compiler} -std=c++17", "cxx_program.cc"),
    ):
        name = source.partition(".")[0]
        run.call(f"{line} -O2 -pipe -ffile-prefix-map={run.dir}=. -S -o {name}.s {source}")
        said.append(run.call(f"cksum {name}.s"))
        run.call(f"{line} -pthread -o {name} {name}.s")
        said.append(run.call(run.path(name)))
    run.call(f"{c_compiler} -O2 {last} -pthread -o c_program c_program.c")
    said.append(run.call(run.path("c_program")))
    return "".join(said)


def work(run):
    return compile_and_run(run, "gcc", "g++", "-flto=2")


def measure(run):
    run.write("c_program.c", c_source(150))
    run.write("cxx_program.cc", CXX_SOURCE)
    return [
        run.gauge("gcc C", "run", 1, "gcc -O2 -c -o c.o c_program.c"),
        run.gauge("gcc C++", "run", 1, "g++ -O2 -std=c++17 -c -o cxx.o cxx_program.cc"),
    ]

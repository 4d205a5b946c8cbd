// override_thread_local.cc -- C++ objects that live as long as a thread or the program.
//
// thread_local objects are destroyed before the keys of pthread, static ones after main; both allocate in their constructors
// and destructors, and free what others made before them. Keys whose destructors run after the thread_local objects are gone
// hold blocks that those objects have left.
//
// covers: S40 S62 S68 C8 C17
/* test: timeout=60 */
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static void require(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "override_thread_local: %s\n", what);
        abort();
    }
}

static std::atomic<long> alive{0};

// Contents that show whether anybody else has written there.
class Hoard {
  public:
    explicit Hoard(unsigned seed) : seed_(seed) {
        for (unsigned i = 0; i < 200; i++)
            words_[seed + i] = std::string((seed * 7 + i * 13) % 900, static_cast<char>('a' + i % 26));
        buffer_.assign(100000 + seed % 1000, seed);
        alive++;
    }
    ~Hoard() {
        check();
        std::vector<std::string> more(100, std::string(300, 'x')); // a destructor that allocates
        require(more.back().size() == 300, "a string in a destructor is wrong");
        alive--;
    }
    void check() const {
        for (unsigned i = 0; i < 200; i++) {
            const std::string &word = words_.at(seed_ + i);
            require(word.size() == (seed_ * 7 + i * 13) % 900, "a string's size has changed");
            for (char c : word)
                require(c == static_cast<char>('a' + i % 26), "a string's contents have changed");
        }
        for (unsigned value : buffer_)
            require(value == seed_, "a vector's contents have changed");
    }

  private:
    unsigned seed_;
    std::map<unsigned, std::string> words_;
    std::vector<unsigned> buffer_;
};

// Static: made before main by whoever comes first, destroyed after main, while detached threads still run.
static Hoard before_main(1);
static std::unique_ptr<Hoard> made_by_thread;

// Destroyed in the opposite order of their first use in the thread, so both orders against each other occur.
static thread_local Hoard first(2);
static thread_local std::unique_ptr<Hoard> second;
static thread_local std::shared_ptr<std::string> shared;

static pthread_key_t key;

// Runs after the thread_local objects of its thread are gone.
static void key_destructor(void *arg) {
    std::unique_ptr<Hoard> mine(static_cast<Hoard *>(arg));
    mine->check();
    void *block = malloc(100);
    require(block != nullptr, "no memory in a key's destructor");
    memset(block, 1, 100);
    free(block);
}

// Allocated in one thread's destructor, freed in the next thread's.
class Relay {
  public:
    ~Relay() { delete baton.exchange(new Hoard(3)); }
    void touch() {}
    static std::atomic<Hoard *> baton;
};
std::atomic<Hoard *> Relay::baton{nullptr};
static thread_local Relay relay;

static void life(unsigned number) {
    if (number % 2)
        first.check();
    second = std::make_unique<Hoard>(number);
    shared = std::make_shared<std::string>(5000, 'y');
    relay.touch();
    pthread_setspecific(key, new Hoard(number + 1));
    if (number % 3 == 0)
        first.check();
    second->check();
}

static void *run_for_ever(void *) {
    for (unsigned i = 0;; i++) {
        Hoard hoard(i);
        hoard.check();
    }
    return nullptr;
}

int main() {
    require(pthread_key_create(&key, key_destructor) == 0, "pthread_key_create");
    before_main.check();
    for (unsigned round = 0; round < 20; round++) {
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < 4; i++)
            threads.emplace_back(life, round * 4 + i);
        for (std::thread &thread : threads)
            thread.join();
        std::thread maker([] { made_by_thread = std::make_unique<Hoard>(9); });
        maker.join();
        made_by_thread->check();
    }
    // What is left: before_main, made_by_thread and the last baton.
    require(alive == 3, "objects of dead threads are alive");
    delete Relay::baton.exchange(nullptr);
    first.check(); // main's own thread_local objects are destroyed before the static ones
    life(5);
    pthread_t detached;
    require(pthread_create(&detached, nullptr, run_for_ever, nullptr) == 0, "pthread_create");
    pthread_detach(detached); // works on while the static objects are destroyed
    usleep(2000);
    return 0;
}

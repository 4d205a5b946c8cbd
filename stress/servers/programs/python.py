"""python3: JSON, dictionaries, threads, subprocesses, forks beside threads; with its own arenas and all
from malloc."""
PACKAGES = ("python3",)
NEEDS = ("/usr/bin/python3",)
PROVEN = ("/usr/bin/python3",)

SCRIPT = r"""
import collections, concurrent.futures, ctypes, gc, hashlib, json, multiprocessing, os, pickle, re
import subprocess, sys, threading, weakref, zlib

def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]

def document(seed, size):
    return {"id": seed, "items": [{"key": f"k{(seed * 31 + i) % 997}", "value": "v" * ((seed + i) % 50),
            "nested": [i, i * 0.5, None, True, {"deep": [i] * (i % 7)}]} for i in range(size)]}

def round_trip(seed):
    text = json.dumps(document(seed, 120), sort_keys=True)
    return zlib.crc32(json.dumps(json.loads(text), sort_keys=True, indent=1).encode())

def child(seed):
    return os.getpid() != parent, sum(round_trip(seed * 10 + i) for i in range(4))

parent = os.getpid()
def main():
    print("json", digest([round_trip(seed) for seed in range(40)]))

    words = collections.Counter()
    for i in range(60000):
        words[f"word{i * i % 9973}"] += 1
    print("count", len(words), words.most_common(3))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print("threads", digest(list(pool.map(round_trip, range(60)))))

    handed_over = []
    def producer(n):
        for i in range(3000):
            handed_over.append((n, bytearray(i % 700)))
    threads = [threading.Thread(target=producer, args=(n,)) for n in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("handed over", len(handed_over), sum(len(b) for _, b in handed_over))
    handed_over.clear()

    class Node:
        pass
    nodes = []
    for i in range(20000):
        node = Node(); node.me = node; node.other = nodes[-1] if nodes else None
        nodes.append(node)
    alive = weakref.ref(nodes[777])
    del nodes, node
    gc.collect()
    print("cycles", alive() is None)

    buffers = [bytearray(1 << (10 + i % 14)) for i in range(60)]
    for i, buffer in enumerate(buffers):
        buffer[-1] = i
        buffers[i] = buffer + bytes(3)
    print("buffers", sum(len(b) for b in buffers), sum(b[-4] for b in buffers))
    text = "".join(f"{i}," for i in range(100000))
    print("regex", len(re.findall(r"(\d+)7,", text)), digest(re.sub(r"(\d)\1", "<\\1>", text)))
    print("pickle", digest(pickle.loads(pickle.dumps(document(7, 500)))))

    def forked_while_threads_allocate():
        stop = threading.Event()
        def spin():
            while not stop.is_set():
                [bytes(n) for n in range(300)]
        spinners = [threading.Thread(target=spin) for _ in range(3)]
        for spinner in spinners: spinner.start()
        results = []
        for n in range(12):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writer, str(round_trip(n)).encode())
                os._exit(0)
            os.close(writer)
            results.append(os.read(reader, 100))
            os.close(reader)
            results.append(os.waitpid(pid, 0)[1])
        stop.set()
        for spinner in spinners: spinner.join()
        return results
    print("fork", digest(forked_while_threads_allocate()))

    with multiprocessing.get_context("fork").Pool(4) as pool:
        print("pool", digest(pool.map(child, range(16))), flush=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print("spawned", pool.map(round_trip, range(2)))
    for n in range(8):
        said = subprocess.run([sys.executable, "-c", f"print(sum(len(str(i)) for i in range({n * 1000})))"],
                              capture_output=True, text=True, check=True).stdout
        print("subprocess", said.strip())
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.realloc.restype = ctypes.c_void_p
    block = libc.malloc(100)
    block = libc.realloc(ctypes.c_void_p(block), 100000)
    ctypes.memset(block, 1, 100000)
    libc.free(ctypes.c_void_p(block))
    print("sqlite", end=" ")
    import sqlite3
    base = sqlite3.connect(":memory:")
    base.execute("create table t(a, b)")
    base.executemany("insert into t values (?, ?)", ((i, f"text {i}") for i in range(20000)))
    print(base.execute("select count(*), sum(length(b)) from t where a % 3 = 0").fetchone())

if __name__ == "__main__":
    main()
"""

LOAD = r"""
import json, sys
store, total = {}, 0
for i in range(60):
    rows = [{"id": j, "name": f"user {i} {j}", "tags": [f"t{(i + j + k) % 50}" for k in range(8)],
             "text": "x" * (j % 300), "score": j / 7} for j in range(400)]
    text = json.dumps(rows)
    store[i % 20] = json.loads(text)
    total += len(text)
words = {}
for i in range(400000):
    key = f"w{i * 7919 % 100003}"
    words[key] = words.get(key, "") + "y"
print(total, len(words), sum(map(len, words.values())))
"""


def work(run):
    path = run.write("script.py", SCRIPT)
    env = {"PYTHONHASHSEED": "0"}
    own = run.call("/usr/bin/python3", path, env=env)
    every = run.call("/usr/bin/python3", path, env={**env, "PYTHONMALLOC": "malloc"})
    run.want(own == every, "PYTHONMALLOC=malloc says something else", every)
    return own


def measure(run):
    path = run.write("load.py", LOAD)
    env = {"PYTHONHASHSEED": "0"}
    return [
        run.gauge("python", "run", 1, "/usr/bin/python3", path, env=env),
        run.gauge("python malloc", "run", 1, "/usr/bin/python3", path, env={**env, "PYTHONMALLOC": "malloc"}),
    ]

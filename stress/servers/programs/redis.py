"""redis: a benchmark of every type; keys checked around BGSAVE, BGREWRITEAOF, lazy frees, a restart and io
threads; memory that comes home when all keys are gone, and what a child that saves copies."""
import re
import signal
import socket
import time
import zlib

import harness

PACKAGES = ("redis-server", "redis-tools")
NEEDS = ("redis-server", "redis-benchmark")
PROVEN = ("redis-server", "redis-benchmark")
MEASURED = ("redis-server",)
KEYS = 12000
FILL_MIB = 96
FILL = """local bytes, key = 0, tonumber(ARGV[1])
while bytes < 16 * 1048576 do
  local size = 16 + key * 7919 % 8000
  redis.call('SET', 'fill:' .. key, string.rep('x', size))
  bytes, key = bytes + size, key + 1
end
return key"""
REST_SECONDS = 20


class Client:
    """Just enough of the protocol: pipelined commands, answers as bytes, int, None or list."""

    def __init__(self, port, run):
        self.run = run
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.reader = self.socket.makefile("rb", 1 << 16)

    def ask(self, *commands):
        packed = bytearray()
        for command in commands:
            packed += b"*%d\r\n" % len(command)
            for word in command:
                word = word if isinstance(word, bytes) else str(word).encode()
                packed += b"$%d\r\n%b\r\n" % (len(word), word)
        self.socket.sendall(packed)
        return [self.answer() for _ in commands]

    def one(self, *command):
        return self.ask(command)[0]

    def answer(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.answer() for _ in range(int(rest))]
        return self.run.fail(f"redis answered {line[:200]!r}")

    def info(self, key):
        found = re.search(rb"^" + key.encode() + rb":(.*)\r$", self.one("INFO"), re.MULTILINE)
        return found.group(1) if found else None


def value(key, version):
    size = (10, 30, 100, 400, 1000, 5000)[key % 6] + key * 37 % 90
    if key % 500 == 0:
        size = 20000 + key * 11 % 100000
    return (b"%d/%d|" % (key, version) * (size // 6 + 1))[:size]


def ready(port):
    return harness.answers(port, b"PING\r\n", b"+PONG\r\n")


def serve(run, options=""):
    def command(port):
        return (
            f"redis-server --port {port} --bind 127.0.0.1 --dir {run.dir} --save '' --daemonize no "
            f"--appendonly no {options}"
        )

    return run.serve(command, ready, name="redis-server")


def wait_for(client, key, result):
    while client.info(key) != b"0":
        time.sleep(0.02)
    client.run.want(client.info(result) == b"ok", f"{result} is {client.info(result)}")


def store(client, expected, keys, version):
    for start in range(0, len(keys), 200):
        batch = keys[start : start + 200]
        answers = client.ask(*(("SET", f"key:{key}", value(key, version)) for key in batch))
        client.run.want(set(answers) == {b"OK"}, f"SET answered {answers[0]!r}")
        expected.update((key, value(key, version)) for key in batch)


def verify(client, expected, when):
    """Every key has the value it was given; returns a checksum of all."""
    checksum = 0
    for start in range(0, KEYS, 200):
        keys = range(start, start + 200)
        for key, answer in zip(keys, client.ask(*(("GET", f"key:{key}") for key in keys))):
            client.run.want(answer == expected.get(key), f"key {key} is wrong {when}")
            checksum = zlib.crc32(answer or b"none", checksum)
    return checksum


def other_types(client):
    """Values of all types that grow out of their compact encodings; returns what they hold in the end."""
    for n in range(40):
        client.ask(
            *(("HSET", f"hash:{n}", f"field{i}", "v" * (i % 120)) for i in range(n * 8)),
            *(("RPUSH" if i % 2 else "LPUSH", f"list:{n}", "item" * (i % 60)) for i in range(n * 8)),
            *(("SADD", f"set:{n}", i if n % 2 else f"member{i}") for i in range(n * 20)),
            *(("ZADD", f"zset:{n}", i * 7919 % 613, f"member{i}") for i in range(n * 8)),
            *(("XADD", f"stream:{n}", f"{i + 1}-0", "field", "x" * (i % 90)) for i in range(n * 4)),
            *(("APPEND", f"string:{n}", "part " * (i % 40)) for i in range(100)),
            *(("HDEL", f"hash:{n}", f"field{i}") for i in range(0, n * 8, 3)),
            *(("LPOP", f"list:{n}") for i in range(n * 3)),
            *(("SREM", f"set:{n}", i) for i in range(0, n * 20, 7)),
            ("SETRANGE", f"string:{n}", n * 3000, "end"),
        )
    said = client.one(
        "EVAL",
        "local s = {} for i = 1, 20000 do s[i] = string.rep('x', i % 50) .. i end "
        "redis.call('SET', 'from lua', table.concat(s)) return #table.concat(s)",
        0,
    )
    checksum = 0
    for n in range(40):
        for answer in client.ask(
            ("HVALS", f"hash:{n}"),
            ("LRANGE", f"list:{n}", 0, -1),
            ("ZRANGE", f"zset:{n}", 0, -1),
            ("SORT", f"set:{n}", "ALPHA"),
            ("XRANGE", f"stream:{n}", "-", "+"),
            ("GET", f"string:{n}"),
        ):
            if isinstance(answer, list) and answer and isinstance(answer[0], bytes):
                answer = sorted(answer)  # hash tables are in the order of a random seed
            checksum = zlib.crc32(repr(answer).encode(), checksum)
    return f"{checksum} {said} {client.one('DBSIZE')}"


def save(client):
    """A child writes the dump; the KiB that were copied for it, by redis's own count."""
    client.one("BGSAVE")
    wait_for(client, "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
    return int(client.info("rdb_last_cow_size")) >> 10


def fill_and_flush(server, client, mib):
    """KiB: resident at the start, when it is full and when it has been empty for REST_SECONDS at most; copied for a child
    that saves."""
    key, start = 0, harness.status_kib(server.pid, "VmRSS")
    for _ in range(mib // 16):
        key = client.one("EVAL", FILL, 0, key)
    copied, full = save(client), harness.status_kib(server.pid, "VmRSS")
    client.one("FLUSHALL")
    end = time.monotonic() + REST_SECONDS
    while True:
        rest = harness.status_kib(server.pid, "VmRSS")
        if home(start, rest) or time.monotonic() > end:
            return start, full, rest, copied
        time.sleep(0.2)


def home(start, rest):
    return rest <= start * 1.25 + 8192


def comes_home(run):
    """Only with the library under test: others keep what they like."""
    if run.allocator.path is None:
        return
    server = serve(run)
    start, full, rest, copied = fill_and_flush(server, Client(server.port, run), FILL_MIB)
    server.stop()
    run.want(full > start + (FILL_MIB << 10), f"{full} KiB of {FILL_MIB} MiB in keys")
    run.want(home(start, rest), f"{start} KiB at the start, {full} full, {rest} at rest")
    run.want(copied <= full // 64 + 2048, f"{copied} KiB copied for a child that saves {full}")


def benchmark(run, server, requests, rows, tests):
    said = run.generate(
        f"redis-benchmark -p {server.port} -n {requests} -r 5000 -d 300 -P 8 -c 30 --threads 2 --csv -t {tests}"
    )
    done = re.findall(r'^"[A-Z].*?","[1-9]', said, re.MULTILINE)
    run.want(len(done) == rows, "a benchmark did not run", said)


def work(run):
    server = serve(run)
    tests = "set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"
    benchmark(run, server, 8000, 15, tests)
    server.check_maps()
    client = Client(server.port, run)
    client.ask(("FLUSHALL", "ASYNC"))
    lines, expected = [], {}
    store(client, expected, range(KEYS), 1)
    lines.append(f"loaded {verify(client, expected, 'after loading')}")
    lines.append(f"types {other_types(client)}")

    # A child that writes the dump shares the heap as it was, while the parent overwrites and frees it.
    client.one("BGSAVE")
    store(client, expected, range(0, KEYS, 2), 2)
    server.check_maps()
    wait_for(client, "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
    client.one("BGREWRITEAOF")
    store(client, expected, range(0, KEYS, 3), 3)
    gone = range(0, KEYS, 7)
    client.ask(*(("UNLINK", f"key:{key}") for key in gone))
    for key in gone:
        del expected[key]
    wait_for(client, "aof_rewrite_in_progress", "aof_last_bgrewrite_status")
    lines.append(f"after fork {verify(client, expected, 'after BGSAVE and BGREWRITEAOF')}")
    client.ask(("MEMORY", "PURGE"), ("MEMORY", "DOCTOR"), ("MEMORY", "USAGE", "hash:39"))
    client.one("BGSAVE")
    wait_for(client, "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
    for number in range(300):  # connections that come and go
        answer = Client(server.port, run).one("GET", f"key:{number}")
        run.want(answer == expected.get(number), f"key {number} is wrong in a connection of its own")
    server.stop()

    server = serve(run, "--io-threads 2 --io-threads-do-reads yes")
    client = Client(server.port, run)
    lines.append(f"restarted {verify(client, expected, 'after the restart')} {client.one('DBSIZE')}")
    client.one("FLUSHALL")
    # The io threads free what the main thread allocated and the other way round. They spin, so this is short.
    benchmark(run, server, 1500, 3, "set,get,mset")
    server.check_maps()
    server.stop(signal.SIGINT)
    comes_home(run)
    return "\n".join(lines)


def rate(run, server, row, requests, options):
    def generator():
        said = run.generate(
            f"redis-benchmark -p {server.port} -n {requests} -c 32 -P 16 -r 200000 --csv {options}"
        )
        per_second = float(said.splitlines()[-1].split('","')[1])
        return requests / 1000, requests / per_second

    return run.load(server, row, "k", False, generator)


def measure(run):
    server = serve(run)
    field = "hset hash:__rand_int__ 'field __rand_int__' 'value __rand_int__'"
    samples = [
        rate(run, server, "redis set", 600_000, "-t set -d 400"),
        rate(run, server, "redis get", 600_000, "-t get"),
        rate(
            run, server, "redis lists", 400_000, "lpush list:__rand_int__ 'an item of some length and more'"
        ),
        rate(run, server, "redis hashes", 400_000, field),
    ]
    server.stop()
    return samples

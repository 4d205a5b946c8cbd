"""memcached: processes store, read, replace and delete values of 1 B to 400 KiB over many connections; all
verified."""
import random
import signal
import socket
import sys
import time

PACKAGES = ("memcached", "libmemcached-tools", "python3")
NEEDS = ("memcached", "memcaslap", "/usr/bin/python3")
PROVEN = ("memcached", "memcaslap", "/usr/bin/python3")
MEASURED = ("memcached",)
WORKERS = 4

# For memcaslap: lengths and shares of keys and values, and of commands (0 set, 1 get). Without a file of ours it
# writes one into the user's home.
MIX = """key
20 60 1
value
20 200 0.5
200 2000 0.4
2000 8000 0.1
cmd
0 0.2
1 0.8
"""


def value(key, version):
    size = (1, 20, 90, 300, 1200, 6000)[key % 6] + key * 13 % 60
    if key % 150 == 0:
        size = 20000 + key * 97 % 380000
    return (b"%d.%d;" % (key, version) * (size // 4 + 1))[:size]


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.reader = self.socket.makefile("rb", 1 << 16)

    def store(self, verb, items):
        self.socket.sendall(
            b"".join(b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, len(data), data) for key, data in items)
        )
        return [self.reader.readline() for _ in items]

    def get(self, keys):
        self.socket.sendall(b"get " + b" ".join(keys) + b"\r\n")
        found = {}
        while True:
            line = self.reader.readline()
            if line == b"END\r\n":
                return found
            _, key, _, size = line.split()
            found[key] = self.reader.read(int(size) + 2)[:-2]

    def ask(self, lines):
        self.socket.sendall(b"".join(line + b"\r\n" for line in lines))
        return [self.reader.readline() for _ in lines]

    def close(self):
        self.reader.close()
        self.socket.close()


def load(port, worker):
    """One process of the load: its own keys, so that it knows what every answer must be."""
    numbers = random.Random(worker)
    name = lambda key: b"worker%d:key%d" % (worker, key)
    expected, client, total = {}, Client(port), 0
    for step in range(350):
        keys = sorted({numbers.randrange(1500) for _ in range(25)})
        items = [(name(key), value(key, step)) for key in keys]
        assert set(client.store(b"set", items)) == {b"STORED\r\n"}, "set"
        expected.update(zip(keys, (data for _, data in items)))
        asked = [numbers.randrange(1500) for _ in range(40)]
        found = client.get([name(key) for key in asked])
        for key in asked:
            assert found.get(name(key)) == expected.get(
                key
            ), f"key {key} of worker {worker} is wrong in step {step}"
            total += len(expected.get(key, b""))
        if step % 5 == 0:
            for key, said in zip(keys, client.ask([b"delete " + name(key) for key in keys])):
                assert said == b"DELETED\r\n", "delete"
                del expected[key]
            assert client.store(b"append", [(name(keys[0]), b"x")]) == [
                b"NOT_STORED\r\n"
            ], "append to nothing"
        if step % 7 == 0 and expected:
            key = max(expected)
            if len(expected[key]) < 100000:
                assert client.store(b"append", [(name(key), b"tail")]) == [b"STORED\r\n"], "append"
                expected[key] += b"tail"
        if step % 10 == 0:
            client.close()
            others = [Client(port) for _ in range(20)]
            for other in others:
                assert other.ask([b"version"])[0].startswith(b"VERSION"), "version"
            for other in others:
                other.close()
            client = Client(port)
    counter = name(10**6)
    client.store(b"set", [(counter, b"0")])
    assert client.ask([b"incr %b 3" % counter] * 500)[-1] == b"1500\r\n", "incr"
    for key, data in expected.items():
        assert (
            client.get([name(key)]).get(name(key)) == data
        ), f"key {key} of worker {worker} is wrong at the end"
    print(f"worker {worker} {len(expected)} keys {total} bytes read")


def serve(run):
    user = run.user()
    as_user = f"-u {user.pw_name}" if user else ""

    def ready(port):
        try:
            client = Client(port)
            return client.ask([b"version"])[0].startswith(b"VERSION")
        except OSError:
            return False

    return run.serve(
        lambda port: f"memcached -l 127.0.0.1 -p {port} -U 0 -m 512 -t 4 -c 2000 {as_user}", ready
    )


def work(run):
    server = serve(run)
    mix = run.write("mix", MIX)
    processes = []
    for worker in range(WORKERS):
        with open(run.path(f"worker{worker}"), "wb") as out:
            processes.append(
                run.spawn(
                    ["/usr/bin/python3", __file__, str(server.port), str(worker)],
                    run.path(f"{worker:03}-worker.err"),
                    stdout=out,
                )
            )
    for worker, process in enumerate(processes):
        if process.wait() != 0:
            said = run.read(f"{worker:03}-worker.err").decode().strip().splitlines()
            run.fail(f"worker {worker} failed: {said[-1] if said else ''}")
        run.forget(process)
    server.check_maps()
    said = run.generate(f"memcaslap -F {mix} -s 127.0.0.1:{server.port} -T 2 -c 32 -x 40000 -v 1.0")
    for part in ("Ops: 40000", "verify_failed: 0", "verify_misses: 0"):
        run.want(part in said, f"memcaslap does not say {part}", said)
    client = Client(server.port)
    client.socket.sendall(b"stats\r\n")
    stats = list(iter(client.reader.readline, b"END\r\n"))
    run.want(b"STAT evictions 0\r\n" in stats, "evictions: the values did not fit")
    client.close()
    server.stop(signal.SIGTERM)
    return b"".join(run.read(f"worker{worker}") for worker in range(WORKERS)).decode()


def measure(run):
    server = serve(run)
    mix = run.write("mix", MIX)

    def get_and_set():
        amount = 120000
        start = time.monotonic()
        run.generate(f"memcaslap -F {mix} -s 127.0.0.1:{server.port} -T 1 -c 32 -x {amount}")
        return amount / 1000, time.monotonic() - start

    def connections():
        amount = 6000
        start = time.monotonic()
        for _ in range(amount // 50):
            clients = [Client(server.port) for _ in range(50)]
            for client in clients:
                client.ask([b"get none" + b"x" * 200])
            for client in clients:
                client.close()
        return amount / 1000, time.monotonic() - start

    samples = [
        run.load(server, "memcached", "k", False, get_and_set),
        run.load(server, "memcached conns", "k", False, connections),
    ]
    server.stop()
    return samples


if __name__ == "__main__":
    load(int(sys.argv[1]), int(sys.argv[2]))

"""killed: redis under load is killed at random moments, again and again; nothing outlives it, and the next one starts."""
# covers: S133
import os
import random
import signal
import subprocess
import time

import harness
import traces

PACKAGES = ("redis-server", "redis-tools")
NEEDS = ("redis-server", "redis-benchmark")
PROVEN = ("redis-server", "redis-benchmark")
KILLS = 12


def ready(port):
    return harness.answers(port, b"PING\r\n", b"+PONG\r\n")


def kill_one(run):
    before = traces.names()
    server = run.serve(
        lambda port: f"redis-server --port {port} --bind 127.0.0.1 --dir {run.dir} --save '' --appendonly no",
        ready,
        name="redis-server",
    )
    load = run.spawn(
        ["redis-benchmark", "-p", str(server.port), "-l", "-q", "-d", "300", "-r", "5000", "-P", "8", "-t", "set,lpush,hset"],
        run.path("load.err"),
        stdout=subprocess.DEVNULL,
    )
    time.sleep(random.uniform(0, 0.4))
    server.check_maps()
    held = traces.held(server.pid, os.path.dirname(run.tools["witness"]), os.path.dirname(run.allocator.path or run.dir))
    run.want(not held, f"a server holds what would outlive it: {held}")
    for process in (server.process, load):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        run.forget(process)
        left = traces.left(process.pid, before)
        run.want(not left, f"left behind by a process that was killed: {left}")


def work(run):
    for _ in range(KILLS):
        kill_one(run)
    return f"killed {KILLS} times"

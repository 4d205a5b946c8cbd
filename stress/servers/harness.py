"""harness.py -- what the programs of this suite share: one Run of one program under one allocator.

A program is a file of programs/ with

    PACKAGES   the Debian packages it comes from
    NEEDS      the commands that must exist
    PROVEN     the executables that must be seen to call the library's malloc (command names or base names)
    MEASURED   the same for measure, where load generators run as they are (PROVEN if absent)
    LIMIT      seconds that one run may take at most (120 if absent)
    work(run)       the check: drives the program, returns text that is the same with and without the library
    measure(run)    for --ratio (if absent, the program is not measured): returns a list of Sample

and reaches the system through the Run it is given, so that whatever is started is preloaded, bounded in time,
listens on 127.0.0.1 only, lives below one temporary directory and is gone at the end.
"""
import ctypes
import os
import pwd
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a user may set to configure an allocator or the loader reaches the programs; nothing else does.
PASSED_ON = ("GRANARY_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "LD_LIBRARY_PATH")
FAMILY = (
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "malloc_usable_size",
)
# A line of an allocator on stderr fails a run even if the program went on.
COMPLAINT = re.compile(
    r"granary: .*|<jemalloc>: .*|mimalloc: (?:error|warning).*|ERROR: ld\.so: .*"
    r"|(?:malloc|free|realloc|munmap_chunk|corrupted)[^\n]*(?:invalid|corrupt|double free)[^\n]*"
)
# How nginx, PostgreSQL, MariaDB and redis write in their logs that one of theirs died.
DEATH = re.compile(r".*(?:exited on signal|terminated by signal|got signal|crashed by signal).*")
PR_SET_CHILD_SUBREAPER = 36


class Failure(Exception):
    """What went wrong, in one line for the user. `detail` is the end of what the program said."""

    def __init__(self, why, detail=""):
        super().__init__(why)
        self.detail = detail


def why(failure):
    """Any exception in one line."""
    text = " ".join(str(failure).split())
    return text if isinstance(failure, Failure) else f"{type(failure).__name__}: {text}"


class Allocator:
    """A library to preload; path None is the program as it is."""

    def __init__(self, name, path=None, env=None):
        self.name = name
        self.path = path
        self.env = env or {}


class Sample:
    """One measured figure: `amount` units of work took `seconds` of wall time, `cpu` seconds and `peak`
    KiB."""

    def __init__(self, row, unit, amount, seconds, cpu, peak):
        self.row = row
        self.unit = unit
        self.rate = amount / seconds
        self.cpu = cpu / amount
        self.peak = peak


def which(name):
    return name if os.path.isabs(name) and os.access(name, os.X_OK) else shutil.which(name, path=PATH)


def limit_of(module):
    return getattr(module, "LIMIT", 120)


def adopt_orphans():
    """From here on a grandchild whose parent died is our child, so that cleaning up finds it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat_fields(pid):
    """/proc/PID/stat after the command name: 0 state, 1 parent, 11 utime, 12 stime, 13 and 14 those of
    children."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def lacks(pid, path):
    """Is the process there, and shows maps without `path`?"""
    fields = stat_fields(pid)
    if not fields or fields[0] == "Z":
        return False
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            maps = file.read()
    except OSError:
        return False
    return bool(maps) and path not in maps


def descendants(top):
    """The processes below `top`, parents first; zombies too."""
    parents = {}
    for entry in os.listdir("/proc"):
        fields = stat_fields(entry) if entry.isdigit() else None
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [top]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def describe(pid):
    def read(name):
        try:
            with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read().strip("\0\n ")
        except OSError:
            return "?"

    return f"{read('comm')}[{pid}] in {read('wchan')}"


def status_kib(pid, key):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def ending(status):
    """An exit status in words."""
    if status < 0 or 128 < status < 160:
        number = -status if status < 0 else status - 128
        return (
            f"killed by {signal.Signals(number).name}"
            if number in iter(signal.Signals)
            else f"signal {number}"
        )
    return f"exit status {status}"


def tail(text, lines=15):
    return "\n".join(text.splitlines()[-lines:])


class Server:
    """A process that runs in the foreground until it is stopped."""

    def __init__(self, run, process, name, port, log):
        self.run = run
        self.process = process
        self.name = name
        self.port = port
        self.log = log
        self.peak = 0

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        return [self.pid] + descendants(self.pid)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def fail(self, why):
        raise Failure(f"{self.name}: {why}", tail(self.said()))

    def check_alive(self):
        if self.process.poll() is not None:
            self.fail(f"ended by itself, {ending(self.process.returncode)}")

    def check_maps(self):
        """The library is mapped in the server and in each of its workers."""
        path = self.run.allocator.path
        if path is None or self.run.measuring == "plain":
            return
        for pid in self.pids():
            end = time.monotonic() + 2
            while lacks(pid, path):  # one that is ending shows a part of its maps, then none
                if time.monotonic() > end:
                    self.fail(f"{path} is not mapped in {describe(pid)}")
                time.sleep(0.02)

    def note_peak(self, whole_tree=False):
        """Peak memory so far in KiB: VmHWM of the server; of a tree of processes, the anonymous memory of
        all, as shared pages would count once for each."""
        if whole_tree:
            self.peak = max(self.peak, sum(status_kib(pid, "RssAnon") for pid in self.pids()))
        else:
            self.peak = max(self.peak, status_kib(self.pid, "VmHWM"))

    def forget_peak(self):
        """What comes counts from here on: VmHWM begins again at what is resident now."""
        self.peak = 0
        try:
            with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
        except OSError:
            pass

    def cpu_seconds(self):
        """CPU seconds of the server's processes that live, and of those it has waited for."""
        ticks = 0
        for pid in self.pids():
            fields = stat_fields(pid)
            if fields:
                ticks += sum(int(value) for value in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self, how=signal.SIGTERM, patience=20):
        """Asks the server to end and wants it to do so well."""
        self.check_alive()
        os.kill(self.pid, how)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            stuck = ", ".join(describe(pid) for pid in self.pids())
            self.fail(f"did not stop within {patience} s of {how.name}: {stuck}")
        self.run.forget(self.process)
        if self.process.returncode not in (0, -how):
            self.fail(f"stopped badly, {ending(self.process.returncode)}")


class Run:
    """One run of one program: its directory, its allocator, its processes."""

    def __init__(self, directory, tools, allocator, measuring=None, shared=None):
        self.dir = directory
        self.tools = tools
        self.allocator = allocator
        self.measuring = (
            measuring  # None: a check; "witnessed" or "plain": a measurement with and without proof
        )
        self.shared = shared or directory
        self.processes = []
        self.servers = []
        self.counter = 0
        self.witness_file = os.path.join(directory, "witness")
        os.makedirs(os.path.join(directory, "tmp"))
        os.chmod(directory, 0o755)
        os.chmod(os.path.join(directory, "tmp"), 0o1777)
        with open(self.witness_file, "w", encoding="utf-8"):
            os.chmod(self.witness_file, 0o666)

    # ---- files ----

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return path

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def once(self, name, make):
        """A directory that all rounds of a measurement share: make(path) fills it the first time."""
        path = os.path.join(self.shared, name)
        if not os.path.exists(path):
            os.makedirs(path)
            make(path)
        return path

    def fail(self, why, detail=""):
        raise Failure(why, tail(detail))

    def want(self, condition, why, detail=""):
        if not condition:
            self.fail(why, detail)

    # ---- processes ----

    def user(self):
        """A user without privileges for programs that refuse to run as root; None if we are one already."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise Failure("no user to run as: neither postgres nor nobody exists")

    def give(self, path, user):
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)

    def preload(self):
        libraries = [] if self.measuring == "plain" else [self.tools["witness"]]
        if self.allocator.path is not None:
            libraries.append(self.allocator.path)
        return " ".join(libraries)

    def env(self, bare=False, extra=None):
        env = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        env.update(
            PATH=PATH, HOME=self.dir, TMPDIR=self.path("tmp"), LANG="C.UTF-8", LC_ALL="C.UTF-8", TZ="UTC"
        )
        if not bare:
            env.update(self.allocator.env)
            env.update(WITNESS_FILE=self.witness_file)
            if self.preload():
                env.update(LD_PRELOAD=self.preload())
        env.update(extra or {})
        return env

    def spawn(self, argv, log, stdin=None, stdout=None, cwd=None, bare=False, env=None, user=None):
        program = which(argv[0])
        if program is None:
            raise Failure(f"not installed: {argv[0]} (run with --install)")
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with open(log, "ab") as errors:
            process = subprocess.Popen(
                [program, *argv[1:]],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or errors,
                stderr=errors,
                cwd=cwd or self.dir,
                env=self.env(bare, env),
                start_new_session=True,
                **who,
            )
        self.processes.append(process)
        return process

    def forget(self, process):
        self.processes.remove(process)

    def call(self, line, *more, stdin=b"", cwd=None, bare=False, env=None, user=None, status=(0,)):
        """Runs a command to its end and returns what it wrote to stdout: the words of `line`, then `more`
        as it is."""
        argv = [*shlex.split(line), *more]
        self.counter += 1
        name = os.path.basename(argv[0])
        log = self.path(f"{self.counter:03}-{name}.err")
        process = self.spawn(argv, log, subprocess.PIPE, subprocess.PIPE, cwd, bare, env, user)
        out, _ = process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
        self.forget(process)
        text = out.decode("utf-8", "surrogateescape")
        if process.returncode not in status:
            with open(log, encoding="utf-8", errors="replace") as file:
                said = file.read()
            last = (said.strip().splitlines() or [""])[-1].strip()[:160]
            raise Failure(
                f"{name}: {ending(process.returncode)}" + (f": {last}" if last else ""), tail(said or text)
            )
        return text

    def generate(self, line, *more):
        """A load generator: preloaded like the rest in a check, as it is in a measurement."""
        return self.call(line, *more, bare=self.measuring is not None)

    def gauge(self, row, unit, amount, line, *more, env=None):
        """A Sample of one command that does `amount` units of work."""
        program, *rest = shlex.split(line)
        env = {**(env or {}), "LD_PRELOAD": ""}
        self.call(
            self.tools["gauge"], self.path("gauge"), self.preload(), which(program), *rest, *more, env=env
        )
        wall, cpu, peak = self.read("gauge").split()
        return Sample(row, unit, amount, float(wall), float(cpu), int(peak))

    def serve(self, command, ready, name=None, cwd=None, env=None, user=None, attempts=3):
        """Starts a server: command(port) is its command line, ready(port) is true once it answers. A port
        that somebody else took in between makes it end at once; then another one is tried."""
        for attempt in range(attempts):
            port = free_port()
            argv = shlex.split(command(port))
            self.counter += 1
            name = name or os.path.basename(argv[0])
            log = self.path(f"{self.counter:03}-{name}.log")
            server = Server(self, self.spawn(argv, log, cwd=cwd, env=env, user=user), name, port, log)
            patience = time.monotonic() + 30
            while server.process.poll() is None:
                if ready(port):
                    self.servers.append(server)
                    return server
                if time.monotonic() > patience:
                    server.fail("does not answer")
                time.sleep(0.01)
            if attempt + 1 == attempts or "in use" not in server.said().lower():
                server.fail(f"does not start, {ending(server.process.returncode)}")
            self.forget(server.process)
        return None

    def load(self, server, row, unit, whole_tree, generator):
        """A Sample of a server under a generator; generator() returns (units done, seconds)."""
        server.forget_peak()
        before = server.cpu_seconds()
        over = threading.Event()

        def watch():
            while not over.wait(0.2):
                server.note_peak(whole_tree)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            amount, seconds = generator()
        finally:
            over.set()
            watcher.join()
        server.check_alive()
        server.check_maps()
        server.note_peak(whole_tree)
        return Sample(row, unit, amount, seconds, max(server.cpu_seconds() - before, 0.01), server.peak)

    # ---- the end ----

    def kill_all(self):
        """Whatever of this run is still there goes: the groups of what we started, and orphans of theirs. An
        interrupt comes first: PostgreSQL then gives its shared memory back."""
        for how, patience in ((signal.SIGINT, 3.0), (signal.SIGKILL, 30.0)):
            alive = [process for process in self.processes if process.poll() is None]
            for process in alive:
                os.killpg(process.pid, how)
            end = time.monotonic() + patience
            while time.monotonic() < end and any(process.poll() is None for process in alive):
                time.sleep(0.01)
        self.processes = []
        for pid in reap():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        reap(5.0)

    def check_orphans(self):
        self.want(not self.processes, "the case left a server running")
        left = reap(5.0)
        self.want(not left, "left behind: " + ", ".join(describe(pid) for pid in left))

    def check_complaints(self):
        for name in sorted(os.listdir(self.dir)):
            if name.endswith((".err", ".log")):
                with open(self.path(name), encoding="utf-8", errors="replace") as file:
                    said = file.read()
                found = COMPLAINT.search(said)
                if found:
                    raise Failure(f"{name[4:-4]}: {found.group().strip()[:300]}", tail(said))

    def check_deaths(self, consequence):
        """After a failure: a server that died, or lost a worker, is the cause; what its clients saw
        follows."""
        for server in self.servers:
            status = server.process.poll()
            if status is not None and status not in (0, -signal.SIGKILL):
                server.fail(f"{ending(status)}; then {consequence}")
            found = DEATH.search(server.said())
            if found:
                server.fail(f"{found.group().strip()[-200:]}; then {consequence}")

    def check_witness(self, proven):
        """Every image that started calls the library, and those named in `proven` are among them."""
        with open(self.witness_file, encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split("\t") for line in file]
        seen = set()
        for exe, *homes in lines:
            if self.allocator.path is not None:
                for home in homes:
                    name, _, path = home.partition("=")
                    if path != self.allocator.path and not same_file(path, self.allocator.path):
                        raise Failure(f"{os.path.basename(exe)} calls {name} of {path}, not of the library")
                self.want(len(homes) == len(FAMILY), f"the witness of {exe} is cut short")
            seen.add(exe)
            seen.add(os.path.basename(exe))
        for name in proven:
            path = which(name)
            self.want(
                name in seen or (path and os.path.realpath(path) in seen),
                f"no proof that {name} ran with the library: it is not among {len(lines)} images seen",
            )


def same_file(one, other):
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def reap(patience=0.0):
    """Takes in children of ours that have ended; returns those that live on after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
        left = descendants(os.getpid())
        if not left or time.monotonic() >= end:
            return left
        time.sleep(0.02)


def free_port():
    """A TCP port of 127.0.0.1 that is free now, below the range from which outgoing connections take
    theirs."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def answers(port, question=b"", answer=b""):
    """Whether somebody accepts connections at 127.0.0.1:port, and gives this answer to this question."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.sendall(question)
            return probe.recv(len(answer)) == answer if answer else True
    except OSError:
        return False


def no_core_files():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

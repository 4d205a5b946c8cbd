"""race_run -- which allocators there are; one command under one of them, and all of them turn by turn. Compares and prints nothing."""
import glob
import json
import mmap
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from race_table import Row

NOT_BY_DEFAULT = {'rest', 'fork', 'request:latency', 'request:purge'}  # minutes of waiting; seconds that are not the allocator's
MADV_POPULATE_WRITE = 23
STRACE_SECONDS = 5  # thousands of threads take it minutes
PACKAGES = {  # name: (Debian package, file to preload)
    'mimalloc': ('libmimalloc2.0', 'libmimalloc.so.2'),
    'jemalloc': ('libjemalloc2', 'libjemalloc.so.2'),
    'tcmalloc': ('libtcmalloc-minimal4', 'libtcmalloc_minimal.so.4'),
    'tbbmalloc': ('libtbbmalloc2', 'libtbbmalloc_proxy.so.2'),
}


def fail(text):
    sys.exit(f'{os.path.basename(sys.argv[0])}: {text}')


def install(*packages):
    root = [] if os.geteuid() == 0 else ['sudo']
    subprocess.run(root + ['apt-get', 'update', '-qq'], check=False)
    command = root + ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', 'install', '-y', '--no-install-recommends']
    if subprocess.run(command + list(packages), check=False).returncode:
        fail(f'apt-get did not install {" ".join(packages)}')


class Allocator:
    def __init__(self, name, path):
        self.name, self.path, self.settings = name, path, {}
        self.file = None  # where its malloc was seen

    def environment(self, preload=True):
        env = {k: v for k, v in os.environ.items() if k not in ('LD_PRELOAD', 'GRANARY_CONF')}
        env.update(self.settings)
        if self.path and preload:
            env['LD_PRELOAD'] = self.path
        return env


def allocator_options(p):
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument('--build', default=os.path.join(os.path.dirname(here), 'build'), help='build tree with bench/load_*')
    p.add_argument('--alloc', action='append', default=[], metavar='NAME=FILE', help='one more allocator; repeatable')
    p.add_argument('--env', action='append', default=[], metavar='NAME:KEY=VALUE',
                   help='a setting for one allocator; repeatable')
    p.add_argument('--only', help='names of the allocators to race, separated by commas')
    p.add_argument('--ours', default='granary', help='the allocator that is compared with the others')


def allocators(args):
    """Ours from the build tree, glibc, what Debian has installed, and what was named."""
    found = []
    for name in ('libgranary.so.1', 'libgranary.so'):
        path = os.path.join(args.build, name)
        if os.path.exists(path) and not found:
            found.append(Allocator('granary', path))
    found.append(Allocator('glibc', None))
    for name, (_, library) in PACKAGES.items():
        for path in sorted(glob.glob(f'/usr/lib/*/{library}') + glob.glob(f'/usr/lib/{library}'))[:1]:
            found.append(Allocator(name, path))
    for text in args.alloc:
        name, equals, path = text.partition('=')
        if not equals or not os.path.exists(path):
            fail(f'--alloc {text}: want NAME=FILE of a file that exists')
        found = [a for a in found if a.name != name] + [Allocator(name, os.path.abspath(path))]
    if args.only:
        wanted = args.only.split(',')
        missing = set(wanted) - {a.name for a in found}
        if missing:
            fail(f'--only: no allocator named {", ".join(sorted(missing))}')
        found = [a for a in found if a.name in wanted]
    for text in args.env:
        name, _, setting = text.partition(':')
        key, equals, value = setting.partition('=')
        if not equals or name not in {a.name for a in found}:
            fail(f'--env {text}: want NAME:KEY=VALUE of an allocator in the race')
        next(a for a in found if a.name == name).settings[key] = value
    return sorted(found, key=lambda a: a.name != args.ours)


def program(args, name):
    for path in (os.path.join(args.build, 'bench', name), os.path.join(args.build, name)):
        if os.access(path, os.X_OK):
            return os.path.abspath(path)
    fail(f'no {name} in {args.build} (build with -DGRANARY_BENCH=ON, or give --build)')


def shape_rows(args):
    """The rows of the shapes that were asked for; the load programs themselves say which modes they have."""
    programs = {}
    for path in glob.glob(os.path.join(args.build, 'bench', 'load_*')) + glob.glob(os.path.join(args.build, 'load_*')):
        name = os.path.basename(path)[len('load_'):]
        if name != 'wrap' and os.access(path, os.X_OK) and os.path.isfile(path):
            programs.setdefault(name, path)
    wanted = sorted(programs) if args.shapes is None else [s for s in args.shapes.split(',') if s]
    made = []
    for want in wanted:
        shape, _, only = want.partition(':')
        path = program(args, f'load_{shape}')
        modes = json.loads(subprocess.run([path, '--describe'], capture_output=True, check=True).stdout)['modes']
        if only and only not in [m['name'] for m in modes]:
            fail(f'{shape} has the modes {", ".join(m["name"] for m in modes)}')
        for mode in modes:
            full = f'{shape}:{mode["name"]}'
            if (only and mode['name'] != only) or (args.shapes is None and {shape, full} & NOT_BY_DEFAULT):
                continue
            for threads in map(int, args.threads.split(',')):
                if threads < max(1, mode['min_threads']):
                    continue
                command = [path, '--mode', mode['name'], '--threads', str(threads), '--seed', str(args.seed),
                           '--scale', str(args.scale)]
                made.append(Row(f'{full} x{threads}', command, shape))
    return made


class Reserve:
    """Memory that is held between runs and free during one. A virtual machine that reports free memory to its host
    loses it within seconds, and finds it again at 8 us a page, 4 ms a huge one: whichever allocator runs next pays.
    What was free only while the last one ran is still there."""

    def __init__(self):
        with open('/proc/meminfo', encoding='ascii') as file:
            available = int(re.search(r'MemAvailable: +(\d+) kB', file.read())[1]) << 10
        self.bytes, self.held = min(1 << 30, available // 4) >> 21 << 21, None

    def hold(self):
        self.held = mmap.mmap(-1, self.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            self.held.madvise(mmap.MADV_HUGEPAGE)
            self.held.madvise(MADV_POPULATE_WRITE)
        except OSError:
            pass  # an older kernel: the runs find memory as they may

    def give(self):
        if not self.held:
            self.hold()
        self.held.close()


reserve = Reserve()


def run(command, env, timeout):
    """The result line of one run, or words that say how it failed. The whole process group ends with it."""
    child = subprocess.Popen(command, env=env, start_new_session=True, text=True, errors='replace',
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, complaint = child.communicate(timeout=timeout)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if isinstance(why, KeyboardInterrupt):
            raise
        return 'timeout'
    try:
        result = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        result = {}
    death = -child.returncode if child.returncode < 0 else result.get('signal', 0)
    if death:
        return f'{signal.Signals(death).name} {complaint.strip()[:100]}'.strip()
    if result.get('verify') == 'bad' and 'bad' in result:
        return 'bad blocks'
    if child.returncode or not result:
        return f'exit {result.get("status", child.returncode)}'
    result['cpu'] = result['user'] + result['sys']
    return result


def preload_took(args, allocator):
    """Asks a load program which file its malloc is in."""
    result = run([program(args, 'load_pair'), '--ops', '1'], allocator.environment(), args.timeout)
    if isinstance(result, str):
        return f'load_pair ends with {result}'
    allocator.file = os.path.realpath(result['malloc'])
    if allocator.path and allocator.file != os.path.realpath(allocator.path):
        return f'malloc is still in {result["malloc"]}'
    if not allocator.path and '/libc' not in result['malloc']:
        return f'malloc is in {result["malloc"]}'
    return None


def wrap_takes_preload(row, allocator):
    """Asks the dynamic loader, without a run. A static or set-user-id program cannot be raced by preload."""
    target = shutil.which(row.command[1])
    if not target:
        return 'no such command'
    env = dict(allocator.environment(), LD_TRACE_LOADED_OBJECTS='1')
    traced = subprocess.run([target], env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=10, check=False)
    loaded = os.path.basename(allocator.path).encode() in traced.stdout
    return None if loaded else 'the loader does not load the preload'


def check(args, racers, course):
    """Drops a peer whose preload does not take; that of ours, or of one that was named, ends the race."""
    named = {text.partition('=')[0] for text in args.alloc} | {args.ours}
    for allocator in list(racers):
        why = preload_took(args, allocator)
        if why and allocator.name in named:
            fail(f'{allocator.name}: the preload did not take: {why}')
        if why:
            print(f'race: {allocator.name} is left out: {why}', file=sys.stderr)
            racers.remove(allocator)
    for row in course:
        for allocator in racers:
            why = row.wrapped and allocator.path and wrap_takes_preload(row, allocator)
            if why:
                fail(f'{row.name} under {allocator.name}: {why}')


class Progress:
    def __init__(self, total):
        self.total, self.done, self.start, self.shown = total, 0, time.monotonic(), 0.0

    def step(self, what):
        now = time.monotonic()
        tty = sys.stderr.isatty()
        if self.done and now - self.shown >= (0.5 if tty else 30):
            left = (now - self.start) / self.done * (self.total - self.done)
            line = f'{self.done}/{self.total} runs, {int(left) // 60} min {int(left) % 60} s left, now {what}'
            print(f'\r\033[K{line}' if tty else line, end='' if tty else '\n', file=sys.stderr, flush=True)
            self.shown = now
        self.done += 1

    def clear(self):
        if sys.stderr.isatty():
            print('\r\033[K', end='', file=sys.stderr, flush=True)


def settle(row):
    """After the last run of a row: all did the same work, or their sums of it differ."""
    sums = {name: {r.get('checksum') for r in runs} for name, runs in row.runs.items()}
    usual = statistics.mode(s for group in sums.values() for s in group) if sums else None
    for name, group in sums.items():
        if group != {usual}:
            row.failures[name].append('checksum')
            del row.runs[name]


def race(args, racers, course, finished, log=None):
    """Runs the rows, and calls finished(row) after the last run of each. A log holds the runs by (row, allocator,
    round): those it has are not run again. With a log all rows go round by round, so that a slow quarter of an hour
    falls on one round of many rows and not on all rounds of a few."""
    rounds, turns = range(args.rounds), list(enumerate(course))
    if log is None:
        log, order = {}, [(i, turn, row) for turn, row in turns for i in rounds]
    else:
        order = [(i, turn, row) for i in rounds for turn, row in turns]
    progress = Progress(sum((row.name, a.name, i) not in log for i, _, row in order for a in racers))
    for i, turn, row in order:
        shift = (i + turn) % len(racers)
        for allocator in racers[shift:] + racers[:shift]:
            key, failed = (row.name, allocator.name, i), row.failures.setdefault(allocator.name, [])
            if key not in log:
                progress.step(f'{row.name} {allocator.name}')
                if 'timeout' in failed:
                    continue
                reserve.give()
                log[key] = run(row.command_for(allocator), allocator.environment(preload=not row.wrapped), args.timeout)
                reserve.hold()
            if isinstance(log[key], str):
                failed.append(log[key])
            else:
                row.runs.setdefault(allocator.name, []).append(log[key])
        if i == args.rounds - 1:
            settle(row)
            progress.clear()
            finished(row)


def count_calls(args, racers, course, log):
    """System calls of a run of a tenth of the work, by name, into the log; None where strace takes too long."""
    course = [row for row in course if not row.wrapped]
    progress = Progress(sum((row.name, a.name, 'calls') not in log for row in course for a in racers))
    for row in course:
        for allocator in racers:
            key = row.name, allocator.name, 'calls'
            if key in log:
                continue
            progress.step(f'system calls, {row.name} {allocator.name}')
            with tempfile.NamedTemporaryFile('r') as table:
                preload = ['-E', f'LD_PRELOAD={allocator.path}'] if allocator.path else []
                trace = ['strace', '-f', '-c', '-qq', '-U', 'name,calls', '-o', table.name]
                command = trace + preload + row.command + ['--scale', str(args.scale / 10)]
                result = run(command, allocator.environment(preload=False), STRACE_SECONDS)
                calls = dict(re.findall(r'^(\w+) +(\d+)$', table.read(), re.M))
            log[key] = None if isinstance(result, str) else {name: int(n) for name, n in calls.items() if name != 'total'}
    progress.clear()

"""race_record -- what was raced, by its checksums, and every run of it: the files that a race leaves behind."""
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from itertools import zip_longest

from race_run import fail
from race_table import notes, ratios, standing, versus

MEMORY_CALLS = ('brk', 'madvise', 'mmap', 'mprotect', 'mremap', 'munmap')
TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def machine():
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        model = re.search(r'model name\s*: (.*)', f.read())
    try:
        with open('/sys/kernel/mm/transparent_hugepage/enabled', encoding='utf-8') as f:
            huge = re.search(r'\[(\w+)\]', f.read()).group(1)
    except OSError:
        huge = 'none'
    return {'cpu': model.group(1) if model else platform.machine(), 'cores': os.cpu_count(),
            'kernel': platform.release(), 'libc': ' '.join(platform.libc_ver()), 'huge_pages': huge,
            'load': round(os.getloadavg()[0], 2)}


def sha256(*paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as f:
            total.update(f.read())
    return total.hexdigest()


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def package(path):
    """'name version' of the Debian package that brought a file; of none, for what was built."""
    for name in (path, path.removeprefix('/usr')):
        owner = output('dpkg-query', '-S', name).partition(':')[0]
        if owner:
            return output('dpkg-query', '-W', '-f', '${Package} ${Version}\n', owner).partition('\n')[0]
    return None


def allocator_facts(a):
    """The file is named from the tree, or from the root when it is the system's; of others only the name."""
    inside = os.path.relpath(a.file, TREE)
    name = a.file if a.file.startswith('/usr/') else os.path.basename(a.file) if inside.startswith('..') else inside
    return {'name': a.name, 'file': name, 'package': package(a.file), 'sha256': sha256(a.file), 'settings': a.settings}


def plain_command(row):
    return [os.path.basename(row.command[0])] + row.command[1:]


class Record(dict):
    """Runs by (row, allocator, round), each a line of DIR/runs.jsonl as soon as it has ended, so that an interrupted
    race goes on. The first line says what was raced: runs of something else are not mixed with these."""

    def __init__(self, args, facts, racers, course):
        super().__init__()
        os.makedirs(args.report, exist_ok=True)
        self.path = os.path.join(args.report, 'runs.jsonl')
        self.allocators = [allocator_facts(a) for a in racers]
        self.machine = {k: v for k, v in facts.items() if k != 'load'}
        raced = {'machine': self.machine, 'rounds': args.rounds, 'timeout': args.timeout,
                 'rows': sha256_text([plain_command(row) for row in course]),
                 'load programs': sha256(*sorted({row.command[0] for row in course}))}
        raced.update({a['name']: [a['sha256'], a['settings']] for a in self.allocators})
        if not os.path.exists(self.path):
            self.append({'raced': raced, 'began': time.strftime('%Y-%m-%d %H:%M %Z')})
        self.began = self.read(raced)

    def read(self, raced):
        with open(self.path, 'r+', encoding='utf-8') as f:
            text = f.read()
            whole = text[:text.rfind('\n') + 1]  # a line that was being written when the machine stopped is no run
            f.truncate(len(whole.encode()))
        head, *lines = map(json.loads, whole.splitlines())
        old = head['raced']
        changed = sorted(k for k in old.keys() | raced.keys() if old.get(k) != raced.get(k))
        if changed:
            fail(f'{self.path} has runs of another race ({", ".join(changed)} changed): remove it, or name another '
                 'directory')
        for *key, result in lines:
            super().__setitem__(tuple(key), result)
        return head['began']

    def append(self, line):
        with open(self.path, 'a', encoding='utf-8') as f:
            f.write(json.dumps(line, separators=(',', ':')) + '\n')

    def __setitem__(self, key, result):
        super().__setitem__(key, result)
        self.append([*key, result])


def sha256_text(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def replace(path, text):
    with open(path + '.new', 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(path + '.new', path)


def write_runs(args, facts, racers, course):
    """--json: every run as its program printed it."""
    names = [a.name for a in racers]
    data = {'machine': facts, 'measure': args.measure, 'rounds': args.rounds, 'scale': args.scale, 'ours': args.ours,
            'allocators': [{'name': a.name, 'file': a.path, 'settings': a.settings} for a in racers],
            'rows': [{'row': r.name, 'command': plain_command(r), 'runs': r.runs,
                      'failures': {k: v for k, v in r.failures.items() if v}, 'versus': versus(args, r, names)}
                     for r in course],
            'standing': {n: standing(args, course, names, n) for n in names}}
    replace(args.json, json.dumps(data, indent=1))


def field_facts(row, name, field):
    return [row.median(name, field), *row.quartiles(name, field), *(r[field] for r in row.runs[name])]


def rounded(value):
    """No more digits than mean anything."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f'{value:.4g}') if isinstance(value, float) else value


def row_facts(args, record, row, names):
    fields = ['wall', 'cpu', 'peak_kib', 'minor_faults'] + (['rest_kib'] if row.shape == 'rest' else [])
    runs = {}
    for name in row.runs:
        runs[name] = {field: field_facts(row, name, field) for field in fields + notes(row.runs[name][0])}
        calls = record.get((row.name, name, 'calls'))
        if calls:
            runs[name]['system_calls'] = [sum(calls.values())]
            runs[name]['memory_calls'] = [sum(calls.get(n, 0) for n in MEMORY_CALLS)]
    return {'row': row.name, 'group': row.group, 'threads': row.threads,
            'command': plain_command(row) if row.wrapped else None, 'versus': versus(args, row, names), 'ratios': ratios(args, row, names), 'allocators': runs,
            'failures': {k: v for k, v in row.failures.items() if v}}


def latency_facts(runs):
    """Counts of calls by how long they took, over all rounds; the other notes round by round."""
    counts = {field: [sum(column) for column in zip_longest(*(r[field] for r in runs), fillvalue=0)]
              for field in ('malloc_ns', 'free_ns')}
    return counts | {field: [r[field] for r in runs] for field in notes(runs[0])}


def report_facts(args, record, racers, course, latency):
    """What the page and its plots are made of."""
    names = [a.name for a in racers]
    return rounded({
        'began': record.began, 'machine': record.machine, 'ours': args.ours, 'measure': args.measure,
        'arguments': {k: getattr(args, k) for k in ('shapes', 'only', 'threads', 'rounds', 'scale', 'seed')},
        'source': output('git', '-C', TREE, 'describe', '--always', '--dirty'), 'allocators': record.allocators,
        'standing': {n: standing(args, course, names, n) for n in names},
        'latency': {row.name: {n: latency_facts(runs) for n, runs in row.runs.items()} for row in latency},
        'fields': ['median', 'lower quartile', 'upper quartile', 'round 1', '...'],
        'rows': [row_facts(args, record, row, names) for row in course]})


def write_report(path, facts):
    """A line for each row, so that two reports can be compared by any diff."""
    head = json.dumps({k: v for k, v in facts.items() if k != 'rows'}, indent=1)
    rows = ',\n'.join(json.dumps(row, separators=(',', ':')) for row in facts['rows'])
    replace(path, f'{head[:-2]},\n "rows": [\n{rows}\n]}}\n')

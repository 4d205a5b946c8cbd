"""race_report -- the page of a race: what was raced, the worst rows first, the plots, every row."""
import os
import subprocess
import sys

from race_plot import bucket_floor
from race_record import replace, report_facts, write_report
from race_run import fail, install
from race_table import gmean

HERE = os.path.dirname(os.path.abspath(__file__))
WORST = 12
PICTURES = (  # file, heading, what it shows
    ('tradeoff.svg', 'Time against memory',
     '{ours} over each peer, and over the best of each row: a small dot is a row, the large one the geometric mean. Left '
     'of the cross {ours} is faster, below it leaner. Rows beyond 1/16 and 16 stand there.'),
    ('time.svg', 'Time, every row',
     '{measure} seconds over the least of the row, by the number of threads; the rows where {ours} is worst come first. '
     'x: it crashed, hung, or broke a block; grey: the shape needs more threads.'),
    ('memory.svg', 'Memory, every row',
     'Resident memory over the leanest of the row; the rows where {ours} is worst come first.'),
    ('scaling.svg', 'Scaling',
     'Throughput (work by wall seconds) by the number of threads; {ours} at its least number of them is 1. The work of a '
     'run does not grow with the threads.'),
    ('latency.svg', 'Single calls',
     'The share of calls that take longer than so many nanoseconds, the clock included. Calls in which the thread was '
     'switched out or a page was touched for the first time are left out.'),
)


def plotting_python():
    """An interpreter that has matplotlib: Debian's package is for Debian's Python, which need not be this one."""
    for attempt in range(2):
        for python in (sys.executable, '/usr/bin/python3'):
            if subprocess.run([python, '-c', 'import matplotlib'], capture_output=True, check=False).returncode == 0:
                return python
        if attempt == 0:
            install('python3-matplotlib')
    return fail('no Python here finds matplotlib (Debian: python3-matplotlib)')


def table(head, rows):
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [head, ['---'] * len(head), *rows]) + '\n'


def number(value, digits=2):
    return '-' if value is None else f'{value:.{digits}f}' if value < 100 else f'{value:.0f}'


def beside(facts, field):
    """Faults or system calls of each allocator over ours: the geometric mean of the rows that both have."""
    means = {}
    for a in facts['allocators']:
        runs = [[row['allocators'].get(name, {}) for name in (a['name'], facts['ours'])] for row in facts['rows']]
        pairs = [[run.get(field, [None])[0] for run in pair] for pair in runs]
        means[a['name']] = gmean((x + 1) / (y + 1) for x, y in pairs if x is not None and y is not None)
    return means


def quantile(counts, share):
    """The time that this share of the calls stay below: the end of its bucket."""
    seen, total = 0, sum(counts)
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= share * total:
            return bucket_floor(bucket + 1)
    return 0


def head(facts):
    m, a = facts['machine'], facts['arguments']
    spelled = ' '.join(f'--{k} {v}' for k, v in a.items() if v is not None)
    return f'''# The race

{facts["began"]}, source {facts["source"] or "unknown"}. {m["cpu"]}, {m["cores"]} processors, Linux {m["kernel"]},
{m["libc"]}, huge pages: {m["huge_pages"]}. Figures are medians of rounds in turn. bench/README.md says what the rows
are and what they cannot show; all rounds and quartiles are in [report.json](report.json).

    bench/race --report DIR {spelled}
'''


def standings(facts):
    faults, calls, rows, raced = beside(facts, 'minor_faults'), beside(facts, 'memory_calls'), [], []
    for a in facts['allocators']:
        name, s = a['name'], facts['standing'][a['name']]
        rows.append([name, number(s['time']), number(s['memory']), number(s['worst_time']), str(s['first']),
                     str(s['failed_rows']), number(faults[name]), number(calls[name])])
        raced.append([name, a['package'] or 'built from source', f'`{a["file"]}`', f'`{a["sha256"][:16]}`',
                      ' '.join(f'{k}={v}' for k, v in a['settings'].items())])
    return f'''
## Standing

Geometric means over the best of each of {len(facts["rows"])} rows, itself among them: 1.00 would be first everywhere.
Page faults, and system calls for memory (in a run of a tenth of the work), are over those of {facts["ours"]}.

''' + table(['', 'time', 'memory', 'worst time', 'rows first', 'rows failed', 'page faults', 'system calls'], rows
            ) + '\n' + table(['allocator', 'package', 'file', 'sha256', 'settings'], raced)


VERSUS = ['row', 'time', 'fastest peer', 'memory', 'leanest peer']


def versus_line(v):
    return [v['row'], number(v['time']) + ' (even)' * v['even'], v['fastest'], number(v['memory']), v['leanest']]


def worst(facts, lines):
    """What ours loses, before anything it wins."""
    ours, text, failed = facts['ours'], f'\n## Where {facts["ours"]} is worst\n', {}
    for what, bar in (('time', 1.0), ('memory', 1.05)):
        ranked = sorted(lines, key=lambda v: -v[what])
        text += (f'\n{what.capitalize()}: {ours} is above {bar:.2f} of the best peer in '
                 f'{sum(v[what] > bar for v in lines)} of {len(lines)} rows; the geometric mean over the best peer is '
                 f'{number(gmean(v[what] for v in lines))}. The worst:\n\n'
                 + table(VERSUS, map(versus_line, ranked[:WORST])))
    for row in facts['rows']:
        for name, why in row['failures'].items():
            failed.setdefault((name, ', '.join(sorted(set(why)))), []).append(row['row'])
    if failed:
        text += '\nFailed, and counted in no mean:\n\n' + table(
            ['allocator', 'how', 'rows'], [[*what, ', '.join(names)] for what, names in failed.items()])
    return text


def latencies(facts):
    """A line for malloc and one for free; what the program counts itself, it counts of both together."""
    rows = []
    for name, by_allocator in facts['latency'].items():
        for allocator, seen in by_allocator.items():
            both = [str(sum(seen['above_10us'])), str(sum(seen['above_1ms'])), str(max(seen['longest_ns']))]
            for call in ('malloc', 'free'):
                counts = seen[f'{call}_ns']
                within = [str(quantile(counts, share)) for share in (0.5, 0.99, 0.999, 0.9999)]
                rows.append([name, allocator, call, str(sum(counts)), *within, *both])
                both = ['', '', '']
    return '\n' + table(['row', 'allocator', 'call', 'calls', '50 % within ns', '99 %', '99.9 %', '99.99 %',
                         'both above 10 us', 'above 1 ms', 'longest ns'], rows) if rows else ''


def page(facts, folder):
    lines = [row['versus'] for row in facts['rows'] if row['versus']['time'] is not None]
    text = head(facts) + (worst(facts, lines) if lines else '') + standings(facts)
    for name, heading, about in PICTURES:
        if os.path.exists(os.path.join(folder, name)):
            text += f'\n## {heading}\n\n{about.format(**facts)}\n\n![{heading}]({name})\n'
    text += latencies(facts)
    if lines:
        ranked = sorted(lines, key=lambda v: -v['time'])
        text += '\n## Every row over the best peer\n\n' + table(VERSUS, map(versus_line, ranked))
    return text


def write(args, record, racers, course, latency):
    facts = report_facts(args, record, racers, course, latency)
    write_report(os.path.join(args.report, 'report.json'), facts)
    if subprocess.run([plotting_python(), os.path.join(HERE, 'race_plot.py'), args.report], check=False).returncode:
        fail('the plots failed')
    path = os.path.join(args.report, 'README.md')
    replace(path, page(facts, args.report))
    print(f'\nrace: the report is {path}')

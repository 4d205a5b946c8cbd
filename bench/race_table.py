"""race_table -- what bench/race makes of its runs: medians, ratios to the best, tables. Runs nothing itself."""
import math
import statistics
import sys

USUAL = {'shape', 'mode', 'threads', 'ops', 'seed', 'wall', 'user', 'sys', 'peak_kib', 'minor_faults', 'malloc',
         'checksum', 'bad', 'verify', 'status', 'signal'}


class Row:
    """One shape, mode and thread count, or one wrapped command, and what every allocator did with it."""

    def __init__(self, name, command, shape, wrapped=False):
        self.name, self.command, self.shape, self.wrapped = name, command, shape, wrapped
        self.runs, self.failures = {}, {}
        self.group, _, threads = name.rpartition(' x')  # shape:mode, or nothing
        self.threads = int(threads) if self.group else None

    def command_for(self, allocator):
        if not self.wrapped:
            return self.command
        preload = ['--preload', allocator.path] if allocator.path else []
        return self.command[:1] + preload + self.command[1:]

    def median(self, name, field):
        values = [r[field] for r in self.runs.get(name, ()) if field in r]
        return statistics.median(values) if values else None

    def time(self, name, measure):
        return self.median(name, measure)

    def memory(self, name):
        """Peak, or what is left at rest where the shape is about that."""
        return self.median(name, 'rest_kib' if self.shape == 'rest' else 'peak_kib')

    def quartiles(self, name, field):
        values = [r[field] for r in self.runs[name]]
        if len(values) < 2:
            return values[0], values[0]
        low, _, high = statistics.quantiles(values, n=4, method='inclusive')
        return low, high


def best(row, names, value):
    """(value, name) of the least among the names that have one."""
    return min(((value(n), n) for n in names if value(n) is not None), default=(None, None))


def ratio(a, b, floor):
    return None if a is None or b is None else max(a, floor) / max(b, floor)


def versus(args, row, names):
    """Ours over the best peer in time and over the leanest in memory; `even` when the quartiles overlap."""
    peers = [n for n in names if n != args.ours]
    result = {'row': row.name}
    time_best, result['fastest'] = best(row, peers, lambda n: row.time(n, args.measure))
    memory_best, result['leanest'] = best(row, peers, row.memory)
    result['time'] = ratio(row.time(args.ours, args.measure), time_best, 1e-4)
    result['memory'] = ratio(row.memory(args.ours), memory_best, 1)
    result['even'] = False
    if result['time'] is not None:
        a, b = row.quartiles(args.ours, args.measure), row.quartiles(result['fastest'], args.measure)
        result['even'] = a[0] <= b[1] and b[0] <= a[1]
    return result


def show(number, width, digits):
    return f'{"-":>{width}}' if number is None else f'{number:{width}.{digits}f}'


def notes(result):
    """What a shape tells beside the usual: names of its numbers."""
    return sorted(k for k, v in result.items() if k not in USUAL | {'cpu', 'rest_kib'} and not isinstance(v, list))


def print_row(args, row, names):
    over = ratios(args, row, names)
    kind = 'rest' if row.shape == 'rest' else 'peak'
    print(f'\n{row.name:<22} {"wall s":>8} {"cpu s":>8}  {args.measure + " quartiles":<17} {kind + " MiB":>9}'
          f' {"faults":>9} {"time":>6} {"memory":>6}')
    for name in names:
        failed = row.failures.get(name, [])
        note = f'  {len(failed)} of {args.rounds} failed: {"; ".join(sorted(set(failed))[:2])}' if failed else ''
        if name not in row.runs:
            print(f'  {name:<20} {note.strip()}')
            continue
        for field in notes(row.runs[name][0]):
            note += f'  {field} {row.median(name, field):.0f}'
        low, high = row.quartiles(name, args.measure)
        memory = row.memory(name)
        print(f'  {name:<20} {row.median(name, "wall"):8.3f} {row.median(name, "cpu"):8.3f}  {low:7.3f} ..{high:7.3f}'
              f' {memory / 1024:9.1f} {row.median(name, "minor_faults"):9.0f}'
              f' {show(over[name][0], 6, 2)} {show(over[name][1], 6, 2)}{note}')
    v = versus(args, row, names)
    if v['time'] is not None:
        print(f'  {args.ours}: time {v["time"]:.3f}{" (even)" if v["even"] else ""} of {v["fastest"]}, '
              f'memory {v["memory"]:.3f} of {v["leanest"]}')
    sys.stdout.flush()


def gmean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratios(args, row, names):
    """name: [time, memory] of each over the best of the row, itself among them."""
    time_best = best(row, names, lambda n: row.time(n, args.measure))[0]
    memory_best = best(row, names, row.memory)[0]
    return {n: [ratio(row.time(n, args.measure), time_best, 1e-4), ratio(row.memory(n), memory_best, 1)] for n in names}


def standing(args, course, names, name):
    """One allocator over the best of each row, itself among them."""
    times, memories = zip(*(ratios(args, row, names)[name] for row in course)) if course else ((), ())
    first = sum(best(row, names, lambda n, row=row: row.time(n, args.measure))[1] == name for row in course)
    return {'time': gmean(times), 'memory': gmean(memories), 'worst_time': max(filter(None, times), default=None),
            'first': first, 'failed_rows': sum(bool(row.failures.get(name)) for row in course)}


def print_versus(args, lines):
    print(f'\n{args.ours} over the best peer of each row: {args.measure} seconds, resident memory; '
          '~ the quartiles overlap')
    print(f'{"row":<24} {"time":>6}  {"fastest peer":<14} {"memory":>6}  leanest peer')
    for v in lines:
        print(f'{v["row"]:<24} {v["time"]:6.3f}{"~" if v["even"] else " "} {v["fastest"]:<14} {v["memory"]:6.3f}'
              f'  {v["leanest"]}')
    time, memory = gmean(v['time'] for v in lines), gmean(v['memory'] for v in lines)
    print(f'{"geometric mean":<24} {time:6.3f}  {"":<14} {memory:6.3f}')
    for what, bar in (('time', 1.0), ('memory', 1.05)):
        worst = max(lines, key=lambda v: v[what])
        print(f'{what} at most {bar:.2f} on {sum(v[what] <= bar for v in lines)} of {len(lines)} rows, '
              f'worst {worst[what]:.3f} ({worst["row"]})')


def print_summary(args, course, names):
    lines = [v for v in (versus(args, row, names) for row in course) if v['time'] is not None]
    if lines:
        print_versus(args, lines)
    print(f'\n{"allocator":<14} {"time":>7} {"memory":>7} {"worst":>7} {"first":>6}'
          '  geometric means over the best of each row')
    for name in names:
        s = standing(args, course, names, name)
        print(f'{name:<14} {show(s["time"], 7, 3)} {show(s["memory"], 7, 3)} {show(s["worst_time"], 7, 2)}'
              f' {s["first"]:6d}' + (f'  failed in {s["failed_rows"]} rows' if s['failed_rows'] else ''))

"""ratio.py -- the --ratio mode of run: every program under every allocator in turn; a table of medians.

The base is glibc, preloaded like the others: the loader does the same work for each, and a program that is
linked with an allocator of its own (Debian's redis with jemalloc) is measured with glibc's all the same.
"""
import json
import os
import shutil
import statistics
import sys

import harness
from harness import Allocator, Failure, Run


LEGEND = """{names} in turn, {rounds} rounds, every second one backwards. Medians; spread is (max - min) / median.
Ratios are of the two runs of one round, which the machine's moods strike alike; (middle half) of those ratios.
speed   rate over glibc's: more is better
cpu     CPU seconds for the same work over glibc's: less is better
memory  peak over glibc's: less is better. Peak is VmHWM; of several processes, the anonymous memory of all
"""


def glibc():
    with open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            path = line.split()[-1]
            if os.path.basename(path).startswith(("libc.so.6", "libc-2.")):
                return Allocator("glibc", os.path.realpath(path))
    raise Failure("this system's libc is not glibc")


def sample(module, directory, tools, allocator, shared, measuring, limit, bounded):
    run = Run(directory, tools, allocator, measuring, shared)
    try:

        def action():
            samples = module.measure(run)
            run.check_orphans()
            return samples

        samples = bounded(run, limit, action)
        run.check_complaints()
        if measuring == "witnessed":
            run.check_witness(getattr(module, "MEASURED", module.PROVEN))
        return samples
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def measure_program(name, module, top, tools, allocators, rounds, limit, bounded):
    """({row: {allocator: [Sample of round 1, ...]}}, {allocator: what went wrong with it}).

    A round that nobody counts comes first: it proves with the witness that each allocator is the one in use, and
    warms the caches of the machine."""
    shared = os.path.join(top, name + "-shared")
    os.makedirs(shared)
    os.chmod(shared, 0o755)
    rows, failures = {}, {}
    try:
        for number in range(rounds + 1):
            for allocator in allocators[:: -1 if number % 2 else 1]:
                if allocator.name in failures:
                    continue
                measuring = "plain" if number else "witnessed"
                progress(f"{name} {number}/{rounds} {allocator.name}")
                try:
                    samples = sample(
                        module, os.path.join(top, name), tools, allocator, shared, measuring, limit, bounded
                    )
                except Exception as failure:
                    failures[allocator.name] = failure
                    for by_allocator in rows.values():
                        by_allocator.pop(allocator.name, None)
                    continue
                for one in samples if number else []:
                    rows.setdefault(one.row, {}).setdefault(allocator.name, []).append(one)
    finally:
        progress("")
        shutil.rmtree(shared, ignore_errors=True)
    return rows, failures


def median(samples, field):
    return statistics.median(getattr(one, field) for one in samples)


def spread(samples, field):
    values = [getattr(one, field) for one in samples]
    return (max(values) - min(values)) / statistics.median(values)


def ratios(samples, base, field):
    """Of each round, in order."""
    return [getattr(one, field) / getattr(other, field) for one, other in zip(samples, base)]


def ratio(samples, base, field):
    return statistics.median(ratios(samples, base, field))


def middle_half(samples, base, field):
    found = sorted(ratios(samples, base, field))
    low, high = (found[round((len(found) - 1) * part)] for part in (0.25, 0.75))
    return f"({low:.2f}-{high:.2f})"


def line(row, name, rate, unit, rate_spread, speed, speed_half, cpu, cpu_half, peak, memory):
    print(
        f"{row:<16} {name:<12} {rate:>9} {unit:<6} {rate_spread:>6} {speed:>6} {speed_half:<11} {cpu:>6} {cpu_half:<11} "
        f"{peak:>8} {memory:>6}".rstrip(),
        flush=True,
    )


def print_row(row, by_allocator, base):
    """One line for each allocator: its medians, and their ratios to the base's."""
    for name, samples in by_allocator.items():
        speed, cpu, memory = (
            f"{ratio(samples, by_allocator[base], field):.3f}" for field in ("rate", "cpu", "peak")
        )
        rate = median(samples, "rate")
        digits = 3 if rate < 10 else 1 if rate < 1000 else 0
        line(
            row,
            name,
            f"{rate:.{digits}f}",
            samples[0].unit + "/s",
            f"{spread(samples, 'rate'):.1%}",
            speed,
            middle_half(samples, by_allocator[base], "rate"),
            cpu,
            middle_half(samples, by_allocator[base], "cpu"),
            f"{median(samples, 'peak') / 1024:.1f}",
            memory,
        )


def geometric_mean(rows, name, base, field):
    found = [ratio(one[name], one[base], field) for one in rows.values() if name in one and base in one]
    return statistics.geometric_mean(found) if found else float("nan")


def print_means(title, rows, names, base):
    for name in names:
        speed, cpu, memory = (f"{geometric_mean(rows, name, base, field):.3f}" for field in ("rate", "cpu", "peak"))
        line(title, name, "", "", "", speed, "", cpu, "", "", memory)


def measure_all(chosen, top, tools, allocator, peers, options, bounded):
    base = glibc()
    allocators = [base, allocator, *peers]
    print(LEGEND.format(rounds=options.rounds, names=", ".join(one.name for one in allocators)))
    line("row", "allocator", "rate", "unit", "spread", "speed", "", "cpu", "", "peak MiB", "memory")
    rows, failed, others = {}, 0, [one.name for one in allocators[1:]]
    for name, module in chosen.items():
        lacking = [need for need in module.NEEDS if not harness.which(need)]
        if lacking:
            failed += 1
            print(f"FAIL {name} not installed: {', '.join(lacking)} (run with --install)", flush=True)
            continue
        limit = harness.limit_of(module) * options.patience
        found, failures = measure_program(
            name, module, top, tools, allocators, options.rounds, limit, bounded
        )
        for label, failure in failures.items():
            failed += 1
            print(f"FAIL {name} with {label}: {harness.why(failure)}", flush=True)
            if getattr(failure, "detail", ""):
                print("    " + failure.detail.replace("\n", "\n    "), file=sys.stderr, flush=True)
        if base.name not in failures:
            for row, by_allocator in found.items():
                print_row(row, by_allocator, base.name)
            if len(found) > 1:
                print_means(name + ", all", found, others, base.name)
            rows.update(found)
    print_means("geometric mean", rows, others, base.name)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {
                    "rounds": options.rounds,
                    "base": base.name,
                    "allocators": {one.name: {"path": one.path, "env": one.env} for one in allocators},
                    "rows": {
                        row: {name: [vars(one) for one in samples] for name, samples in by_allocator.items()}
                        for row, by_allocator in rows.items()
                    },
                },
                file,
                indent=1,
            )
    return 1 if failed or not rows else 0

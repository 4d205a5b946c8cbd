#!/usr/bin/env python3
"""rest_plot FILE.svg [FILE.png] -- draws the bursts in what bench/rest --json wrote, read from its input: RSS over time, a panel for each
mix and number of threads, and the bar of ours."""
import json
import sys

from race_plot import look_of, save


def corners(line, earliest):
    """The points from `earliest` on at which the line turns by half a percent."""
    line = [p for p in line if p[0] >= earliest]
    kept = line[:1]
    for before, point in zip(line, line[1:]):
        if abs(point[1] / kept[-1][1] - 1) > 0.005:
            kept += [before, point]
    return kept + line[-1:]


def main():
    import matplotlib
    matplotlib.use('svg')
    from matplotlib import pyplot as plt
    plt.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': 'rest', 'font.sans-serif': ['DejaVu Sans'],
                         'figure.constrained_layout.use': True})
    facts = json.load(sys.stdin)
    rows, ours = facts['burst'], facts['ours']
    names = [a['name'] for a in facts['allocators']]
    sizes = sorted({row['largest'] for row in rows})
    counts = sorted({row['threads'] for row in rows})
    figure, panels = plt.subplots(len(sizes), len(counts), figsize=(0.8 + 3.6 * len(counts), 0.9 + 2.9 * len(sizes)), squeeze=False,
                                  sharex=True, sharey='row')
    earliest = max(-3, min(run['line'][0][0] for row in rows for run in row['runs'].values()))
    for row in rows:
        panel = panels[sizes.index(row['largest'])][counts.index(row['threads'])]
        for name in reversed(names):
            look = dict(look_of(names, name, ours), marker='')
            panel.plot(*zip(*corners(row['runs'][name]['line'], earliest)), label=name, **look)
        if ours in row['runs']:
            panel.axhline(row['runs'][ours]['bar'], color='0.45', linewidth=0.9, linestyle=':')
        panel.set_yscale('log')
        panel.set_xlim(earliest, 10)
        largest = f'{row["largest"] >> 20} MiB' if row['largest'] >> 20 else f'{row["largest"] >> 10} KiB'
        panel.set_title(f'16 B to {largest}, {row["threads"]} thread{"s" * (row["threads"] > 1)}', fontsize=9.5)
        panel.grid(color='0.88', linewidth=0.6)
        panel.set_yticks([16, 32, 64, 128, 256, 512, 1024], ['16', '32', '64', '128', '256', '512', '1024'], fontsize=8)
        panel.set_yticks([], minor=True)
    for line in panels:
        line[0].set_ylabel('RSS, MiB', fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel('seconds after the last free', fontsize=9)
    handles = [plt.Line2D([], [], label=name, **dict(look_of(names, name, ours), marker='')) for name in names]
    handles.append(plt.Line2D([], [], label=f'the bar of {ours}', color='0.45', linewidth=0.9, linestyle=':'))
    figure.legend(handles=handles, loc='upper center', ncol=len(handles), frameon=False, fontsize=9)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.35 / (0.9 + 2.9 * len(sizes))))
    save(figure, sys.argv[1])
    for path in sys.argv[2:]:
        figure.savefig(path, dpi=80)


if __name__ == '__main__':
    main()

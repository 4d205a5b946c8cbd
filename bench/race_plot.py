#!/usr/bin/env python3
"""race_plot DIR [--png] -- draws DIR/report.json as SVG files beside it. --png: as PNG files too, to look at."""
import json
import math
import os
import re
import sys

COLOURS = ('#d55e00', '#000000', '#0072b2', '#009e73', '#56b4e9', '#cc79a7', '#e69f00')  # Okabe and Ito: for all eyes
MARKERS = 'osD^vPX*'
STYLES = ('-', '--', '-.', (0, (3, 1, 1, 1)), ':', (0, (5, 1)), '-')
HIGHEST = 8  # the darkest ratio of a heat table
FRAME = 16   # the largest ratio inside the frame of the tradeoff


def bucket_floor(i):
    """The least nanoseconds of bucket i of a histogram: four buckets to each power of two, see load_request.c."""
    return i if i < 8 else (i % 4 + 4) << (i // 4 - 1)


def look_of(names, name, ours):
    i = names.index(name)
    return {'color': COLOURS[i % len(COLOURS)], 'marker': MARKERS[i % len(MARKERS)],
            'linestyle': STYLES[i % len(STYLES)], 'linewidth': 2.0 if name == ours else 1.2, 'zorder': 3 if name == ours else 2}


class Report:
    def __init__(self, folder):
        with open(os.path.join(folder, 'report.json'), encoding='utf-8') as f:
            self.facts = json.load(f)
        self.ours, self.rows = self.facts['ours'], self.facts['rows']
        self.names = [a['name'] for a in self.facts['allocators']]
        counts = {row['threads'] for row in self.rows}
        self.threads = sorted(counts - {None})
        self.columns = self.threads + [None] * (None in counts)  # a wrapped command has no number of threads
        self.groups = list(dict.fromkeys(row['group'] or row['row'] for row in self.rows))
        self.cells = {(row['group'] or row['row'], row['threads']): row for row in self.rows}

    def look(self, name):
        return look_of(self.names, name, self.ours)


def gmean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def tradeoff(plt, report):
    """Ours over one peer in each panel, and over the best of each row in the last."""
    def against(peer):
        for row in report.rows:
            if peer is None:
                yield row['versus']['time'], row['versus']['memory']
            elif None not in row['ratios'][peer] + row['ratios'][report.ours]:
                (a, b), (c, d) = row['ratios'][report.ours], row['ratios'][peer]
                yield a / c, b / d

    peers = [n for n in report.names if n != report.ours] + [None]
    if report.ours not in report.names or len(peers) < 2:
        return None
    columns = min(3, len(peers))
    lines = math.ceil(len(peers) / columns)
    figure, panels = plt.subplots(lines, columns, figsize=(3.9 * columns, 3.6 * lines), squeeze=False)
    ticks = [1 / 16, 1 / 4, 1, 4, 16]
    for panel, peer in zip(panels.flat, peers):
        points = [p for p in against(peer) if None not in p]
        if not points:  # the peer failed everywhere
            panel.axis('off')
            continue
        inside = [[min(max(v, 1 / FRAME), FRAME) for v in p] for p in points]
        look = report.look(peer or report.ours)
        colour = look['color']
        panel.axvline(1, color='0.6', linewidth=0.8)
        panel.axhline(1, color='0.6', linewidth=0.8)
        panel.plot(*zip(*inside), marker=look['marker'], color=colour, alpha=0.45, linestyle='', markersize=3.5,
                   markeredgewidth=0)
        time, memory = (gmean(v) for v in zip(*points))
        panel.plot([time], [memory], marker='o', markersize=11, color=colour, markeredgecolor='white',
                   markeredgewidth=1.5)
        name = f'over {peer}' if peer else 'over the best of each row'
        panel.set_title(f'{name}: time {time:.2f}, memory {memory:.2f}', fontsize=9)
        for x, y, faster, leaner in ((0.02, 0.02, 1, 1), (0.98, 0.02, 0, 1), (0.02, 0.98, 1, 0), (0.98, 0.98, 0, 0)):
            share = sum((t <= 1) == faster and (m <= 1) == leaner for t, m in points) / len(points)
            words = f'{"faster" if faster else "slower"}, {"leaner" if leaner else "larger"}: {share:.0%}'
            panel.text(x, y, words, transform=panel.transAxes, fontsize=7.5, color='0.3',
                       ha='left' if x < 0.5 else 'right', va='bottom' if y < 0.5 else 'top')
        panel.set_xscale('log')
        panel.set_yscale('log')
        for axis, set_lim in ((panel.xaxis, panel.set_xlim), (panel.yaxis, panel.set_ylim)):
            set_lim(1 / FRAME / 2.4, FRAME * 2.4)  # room for the words outside of the frame
            axis.set_ticks(ticks, ['1/16', '1/4', '1', '4', '16'], fontsize=8)
            axis.set_ticks([], minor=True)
    for panel in panels.flat[len(peers):]:
        panel.axis('off')
    figure.supxlabel(f'{report.facts["measure"]} seconds of {report.ours} over those of the peer', fontsize=9)
    figure.supylabel('memory, likewise', fontsize=9)
    return figure


def heat(plt, report, index, what):
    """Rows by allocators, each at every number of threads: ratios to the best of the row."""
    threads = report.columns

    def over(row, name):
        return row['ratios'][name][index] if row else None

    ours = report.ours if report.ours in report.names else report.names[0]
    groups = sorted(report.groups, key=lambda g: -max(over(report.cells.get((g, t)), ours) or 0 for t in threads))
    columns = [(name, t) for name in report.names for t in threads]
    width, height = 1.6 + 0.36 * len(columns), max(2.6, 1.2 + 0.235 * len(groups))
    figure, panel = plt.subplots(figsize=(width, height))
    grid = [[math.nan] * len(columns) for _ in groups]
    for y, group in enumerate(groups):
        for x, (name, t) in enumerate(columns):
            row = report.cells.get((group, t))
            value = over(row, name)
            if value is None:
                failed = row and row['failures'].get(name)
                panel.text(x, y, 'x' if failed else '', ha='center', va='center', fontsize=8, color='0.25')
                continue
            grid[y][x] = min(math.log2(value), math.log2(HIGHEST))
            text = f'{value:.2f}' if value < 9.95 else f'{value:.0f}' if value < 9950 else f'{value / 1000:.0f}k'
            panel.text(x, y, text, ha='center', va='center', fontsize=6.5, color='white' if value > 2.8 else 'black')
    colours = plt.get_cmap('YlGnBu').with_extremes(bad='0.85')
    picture = panel.imshow(grid, cmap=colours, vmin=0, vmax=math.log2(HIGHEST), aspect='auto', interpolation='nearest')
    panel.set_yticks(range(len(groups)), groups, fontsize=8)
    panel.set_xticks(range(len(columns)), [f'x{t}' if t else 'run' for _, t in columns], fontsize=7)
    panel.tick_params(length=0, top=True, labeltop=True)
    for i, name in enumerate(report.names):
        panel.annotate(name, ((i + 0.5) * len(threads) - 0.5, 1), (0, 19), xycoords=('data', 'axes fraction'),
                       textcoords='offset points', ha='center', va='bottom', fontsize=10,
                       fontweight='bold' if name == ours else 'normal')
        if i:
            panel.axvline(i * len(threads) - 0.5, color='white', linewidth=4)
    for side in panel.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(picture, ax=panel, fraction=0.02, pad=0.01, ticks=range(int(math.log2(HIGHEST)) + 1))
    bar.ax.set_yticklabels([f'{2 ** i}' for i in range(int(math.log2(HIGHEST)))] + [f'{HIGHEST} and more'], fontsize=8)
    bar.set_label(f'{what} over the best', fontsize=9)
    return figure


def scaling(plt, report):
    """Work by wall seconds, over ours at the least number of threads."""
    def wall(row, name):
        return row['allocators'][name]['wall'][0] if name in row['allocators'] else None

    shown = []
    for group in report.groups:
        counts = [t for t in report.threads if (group, t) in report.cells]
        base = next((w for t in counts if (w := wall(report.cells[group, t], report.ours))), None)
        if len(counts) > 1 and base:
            shown.append((group, counts, base))
    if not shown:
        return None
    columns = min(6, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure, panels = plt.subplots(lines, columns, figsize=(2.2 * columns + 0.6, 1.75 * lines + 0.8), squeeze=False)
    for panel, (group, counts, base) in zip(panels.flat, shown):
        for name in reversed(report.names):
            points = [(t, base / max(w, 1e-6)) for t in counts if (w := wall(report.cells[group, t], name))]
            if points:
                panel.plot(*zip(*points), markersize=3, label=name, **report.look(name))
        panel.set_title(group, fontsize=8.5, pad=3)
        panel.set_xscale('log', base=2)
        panel.set_yscale('log', base=2)
        panel.set_xticks(report.threads, [str(t) for t in report.threads], fontsize=7)
        panel.set_xticks([], minor=True)
        low, high = panel.get_ylim()
        low, high = min(low, 0.7), max(high, 1.4)
        step = max(1, math.ceil(math.log2(high / low) / 4))
        ticks = [2.0 ** e for e in range(-30, 30) if e % step == 0 and low <= 2.0 ** e <= high]
        panel.set_ylim(low, high)
        panel.set_yticks(ticks, [f'{t:g}' if t >= 1 else f'1/{1 / t:g}' for t in ticks], fontsize=7)
        panel.set_yticks([], minor=True)
        panel.grid(axis='y', color='0.88', linewidth=0.6)
    for panel in panels.flat[len(shown):]:
        panel.axis('off')
    handles = [plt.Line2D([], [], markersize=4, label=name, **report.look(name)) for name in report.names]
    figure.legend(handles=handles, loc='upper center', ncol=len(handles), frameon=False, fontsize=9)
    figure.supxlabel('threads', fontsize=9)
    figure.supylabel('throughput', fontsize=9)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.3 / (1.75 * lines + 0.8)))
    return figure


def latency(plt, report):
    """How many calls take longer: the tail is what a server's users see."""
    rows = [(row, seen) for row, seen in report.facts['latency'].items() if seen]
    if not rows:
        return None
    figure, panels = plt.subplots(len(rows), 2, figsize=(11, 4.2 * len(rows)), squeeze=False, sharey=True)
    for line, (row, seen) in zip(panels, rows):
        for panel, call in zip(line, ('malloc', 'free')):
            for name in [n for n in reversed(report.names) if n in seen]:
                counts = seen[name][f'{call}_ns']
                left, points = sum(counts), []
                for i, count in enumerate(counts):
                    left -= count
                    if count and left:
                        points.append((bucket_floor(i + 1), left / sum(counts)))
                if points:
                    panel.plot(*zip(*points), markersize=3.5, label=name, **report.look(name))
            panel.set_title(f'{call}, {row}', fontsize=10)
            panel.set_xscale('log')
            panel.set_yscale('log')
            panel.set_xlabel('nanoseconds', fontsize=9)
            panel.grid(color='0.88', linewidth=0.6)
        line[0].set_ylabel('share of the calls that take longer', fontsize=9)
        handles, labels = line[0].get_legend_handles_labels()
        line[1].legend(handles[::-1], labels[::-1], fontsize=9, frameon=False, loc='lower left')
    return figure


def smaller(svg):
    """The same picture: no comments, no names of parts, the font named once, coordinates to a tenth of a point, and what
    all points of a line have in common said once."""
    def tenths(tag):
        return re.sub(r'\d+\.\d\d+(?!\w)', lambda m: f'{float(m[0]):.1f}', tag[0])

    def hoisted(points):
        return f'<g{points[1]} style="{points[3]}">\n' + points[2].replace(f' style="{points[3]}"', '') + '</g>'

    svg = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>| id="[a-z.\d]+_\d+"', '', svg, flags=re.S)
    svg = svg.replace('</style>', 'text {font-family: "DejaVu Sans", Verdana, sans-serif}</style>', 1)
    svg = re.sub(r"font: (?:(\d+) )?([\d.]+px) 'DejaVu Sans'(?:, sans-serif)?",
                 lambda m: f'font-size: {m[2]}' + f'; font-weight: {m[1]}' * bool(m[1]), svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', '', svg)
    svg = re.sub(r'<(?!\?)[^>]*>', tenths, svg)
    svg = re.sub(r'\n\s+', '\n', svg)
    svg = re.sub(r'<g>\s*(<text.*?</text>)\s*</g>', r'\1', svg, flags=re.S)
    for _ in range(3):
        svg = re.sub(r'<g>\n(<(?:use|path)[^>]*/>)\n</g>', r'\1', svg)
    return re.sub(r'<g( clip-path="[^"]*")>\n((?:<use [^>]*style="([^"]*)"/>\n)+)</g>', hoisted, svg)


def save(figure, path):
    figure.savefig(path, metadata={'Date': None})
    with open(path, 'r+', encoding='utf-8') as f:
        text = smaller(f.read())
        f.seek(0)
        f.write(text)
        f.truncate()


def main():
    import matplotlib
    matplotlib.use('svg')
    from matplotlib import pyplot as plt
    folder = sys.argv[1]
    report = Report(folder)
    plt.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': 'race', 'font.sans-serif': ['DejaVu Sans'],
                         'figure.constrained_layout.use': True})
    figures = {'tradeoff': tradeoff(plt, report), 'scaling': scaling(plt, report), 'latency': latency(plt, report),
               'time': heat(plt, report, 0, f'{report.facts["measure"]} seconds'),
               'memory': heat(plt, report, 1, 'resident memory')}
    for name, figure in figures.items():
        path = os.path.join(folder, name)
        if os.path.exists(path + '.svg'):
            os.remove(path + '.svg')
        if not figure:
            continue
        save(figure, path + '.svg')
        if '--png' in sys.argv[2:]:
            figure.savefig(path + '.png', dpi=80)


if __name__ == '__main__':
    main()

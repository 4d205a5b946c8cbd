"""sort: a file larger than its buffer by four threads, unique, numeric, by key, merged; then join, uniq and
comm."""
PACKAGES = ("coreutils",)
NEEDS = ("sort", "join", "comm", "bash")
PROVEN = ("sort", "join", "uniq")

SCRIPT = r"""
set -eu
seq 1 120000 | awk '{ x = ($1 * 7919) % 120011; print x, "text" x % 1013, $1 }' > lines
sort --parallel=4 -S 3M -T . lines | cksum
sort --parallel=4 -S 40M -n -k1,1 lines | cksum
sort --parallel=2 -S 5M -T . --compress-program=gzip -k2,2 -k3,3nr lines | cksum
sort -u -k2,2 lines | wc -l
sort --parallel=4 -R --random-source=lines lines | sort -n | cksum
for i in 1 2 3 4 5; do awk -v i=$i 'NR % 5 == i - 1' lines | sort > part$i; done
sort -m part1 part2 part3 part4 part5 | cksum
sort -c <(sort lines)
sort -k1,1 lines > one
awk '{ print $1, "other" $3 % 10 }' lines | sort -k1,1 > two
join one two | cksum
comm -12 <(cut -d' ' -f1 one) <(cut -d' ' -f1 two) | wc -l
cut -d' ' -f2 lines | sort | uniq -c | sort -rn | head -3
"""


def work(run):
    return run.call("bash", run.write("script.sh", SCRIPT))

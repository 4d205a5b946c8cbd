"""xz, zstd: compression with several threads there and back, and the tests of the archives."""
import random

PACKAGES = ("xz-utils", "zstd", "pigz", "bzip2")
NEEDS = ("xz", "zstd", "pigz", "bzip2", "bash")
PROVEN = ("xz", "zstd", "pigz", "bzip2")

SCRIPT = r"""
set -eu
xz -T2 -3 --block-size=1MiB -k -c data > data.xz
xz -t data.xz
xz -T2 -dc data.xz | cmp - data
zstd -q -T2 -9 data -o data.zst
zstd -q -t data.zst
zstd -q -dc data.zst | cmp - data
zstd -q -T2 -6 --long=24 -c data | zstd -q -dc --long=24 | cksum
pigz -p 3 -k -c data | pigz -d -c | cksum
bzip2 -5 -c data | bzip2 -dc | cksum
zstd -q --train part* -o dictionary --maxdict=20000 2>/dev/null
for p in part1 part2 part3; do zstd -q -D dictionary -c $p | zstd -q -D dictionary -dc | cmp - $p; done
cksum data data.xz
"""


def work(run):
    numbers = random.Random(3)
    words = [bytes(numbers.randrange(97, 123) for _ in range(numbers.randrange(2, 11))) for _ in range(3000)]
    data = b" ".join(numbers.choice(words) for _ in range(350_000))
    run.write("data", data)
    for i in range(200):
        run.write(f"part{i}", data[i * 2000 : (i + 1) * 2000])
    return run.call("bash", run.write("script.sh", SCRIPT))

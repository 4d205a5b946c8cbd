"""tar, rsync, find, grep, sed, awk: a tree of 1500 files packed, unpacked, copied, searched and compared."""
PACKAGES = ("tar", "rsync", "findutils", "grep", "sed", "gawk", "gzip", "diffutils")
NEEDS = ("tar", "rsync", "find", "grep", "sed", "gawk", "gzip", "diff")
PROVEN = ("tar", "rsync", "find", "grep", "sed", "gawk", "diff")

SCRIPT = r"""
set -eu
same="--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner"
tar -cf tree.tar $same tree
tar -czf tree.tgz $same tree
tar -tf tree.tar | cksum
mkdir one two
tar -xf tree.tar -C one
tar -xzf tree.tgz -C two
diff -r one two && echo same
rsync -a --checksum one/tree/ three/
echo changed >> one/tree/dir3/file33.txt
rsync -ai --checksum --delete one/tree/ three/ | cut -d' ' -f2
diff -r one/tree three && echo same
diff -r -u two/tree three | grep -v '^\(---\|+++\|diff\)' || true
find tree -type f -name '*7.txt' -size +1k | sort | cksum
grep -r -c -E '(line) [0-9]+7 .*\bz+$' tree | sort | cksum
grep -r -o -h -P '\d+(?= of dir1\b)' tree | sort -n | cksum
cat tree/*/*.txt | sed -E 's/([0-9]+) of (dir[0-9]+)/\2:\1/g; /dir4/d' | cksum
cat tree/*/*.txt | gawk '
    { n[$4]++; t[$4] = t[$4] substr($5, 1, 3) }
    END { c = asorti(n, s); for (i = 1; i <= c; i++) print s[i], n[s[i]], length(t[s[i]]) }' | cksum
gawk 'BEGIN {
    for (i = 0; i < 200000; i++) a[i * 7919 % 50021] = a[i * 7919 % 50021] i
    print length(a), length(a[17])
}'
"""


def work(run):
    for d in range(15):
        for f in range(100):
            run.write(
                f"tree/dir{d}/file{f}.txt",
                "".join(f"line {line} of dir{d} file{f} {'z' * (line * f % 30)}\n" for line in range(10 + f)),
            )
    return run.call("bash", run.write("script.sh", SCRIPT))

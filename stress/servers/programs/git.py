"""git: 120 commits, branches, merges, gc, clone over the protocol, log, blame, rebase, fsck; all hashes
must agree."""
import random

PACKAGES = ("git",)
NEEDS = ("git",)
PROVEN = ("git",)

CONFIG = """[user]
    name = Somebody
    email = somebody@example.org
[init]
    defaultBranch = main
[gc]
    auto = 0
[pack]
    threads = 2
[protocol "file"]
    allow = always
"""

SCRIPT = r"""
set -eu
export GIT_CONFIG_NOSYSTEM=1
commit() {
    export GIT_AUTHOR_DATE="$1 +0000" GIT_COMMITTER_DATE="$1 +0000"
    git commit -q -a -m "$2"
}
git init -q repo
cd repo
mkdir src
when=1700000000
for i in $(seq 1 120); do
    when=$(( when + 60 ))
    for j in 1 2 3; do
        f=src/file$(( (i * j) % 17 )).txt
        seq $(( i * j )) $(( i * j + 200 )) | sed "s/7/seven $i/" >> $f
    done
    git add src
    commit $when "change $i"
    if (( i % 30 == 0 )); then
        git checkout -q -b side$i HEAD~5
        echo "side $i" > side$i.txt
        git add side$i.txt
        commit $when "side $i"
        git checkout -q main
        export GIT_AUTHOR_DATE="$when +0000" GIT_COMMITTER_DATE="$when +0000"
        git merge -q -m "merge side$i" side$i
        git tag -a -m "tag $i" v$i
    fi
done
git repack -q -a -d -f --depth=20 --window=20
git gc -q --prune=now
git log --stat -p --all | cksum
git log --graph --oneline --decorate | cksum
git blame src/file3.txt | cksum
git grep -n 'seven 1[0-9]' | cksum
git shortlog -s -n HEAD
git rev-list --objects --all | cksum
git diff --stat v30 v120 | tail -1
git archive HEAD | cksum
git rebase -q --committer-date-is-author-date --onto HEAD~3 HEAD~1 2>&1
git rev-parse HEAD
cd ..
git clone -q --no-local "file://$PWD/repo" copy
git -C copy fsck --full --strict 2>&1
git -C repo fsck --full --strict --no-dangling 2>&1
git -C copy log --oneline origin/main | cksum
git -C copy rev-parse origin/main origin/side60 v90
git clone -q --bare repo bare.git
git -C bare.git count-objects -v | grep -v size
"""


def work(run):
    run.write(".gitconfig", CONFIG)
    return run.call("bash", run.write("script.sh", SCRIPT))


def measure(run):
    def make(path):
        """A repository of 1500 commits, written by fast-import."""
        numbers = random.Random(1)
        stream = []
        for i in range(1500):
            text = "".join(f"{numbers.randrange(4000)} some words of line {line}\n" for line in range(120))
            stream.append(
                f"commit refs/heads/main\ncommitter S <s@example.org> {1700000000 + i} +0000\n"
                f"data 6\nchange\nM 644 inline dir{i % 7}/file{i % 53}\ndata {len(text)}\n{text}\n"
            )
        run.call(f"git init -q --bare {path}", bare=True)
        run.call(f"git -C {path} fast-import --quiet", stdin="".join(stream), bare=True)

    repository = run.once("git", make)
    return [
        run.gauge("git repack", "run", 1, f"git -C {repository} -c pack.threads=2 repack -a -d -f -q"),
        run.gauge("git log", "run", 1, f"git -C {repository} log -p --stat main"),
    ]

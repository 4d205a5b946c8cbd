"""traces.py -- what could outlive a process that is killed, and how to see that nothing of it does.

While the process lives: memory that it shares by name or by descriptor, files that it has open or mapped. When it is gone: its
other processes, System V memory, semaphores and queues that it made, and names in the places where such things lie. Others use
the machine at the same time, so a new name counts only if it tells of the library or of the process.
"""
import os
import re

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")
# Descriptors of a server: none of these has a name that stays.
TRANSIENT = re.compile(r"(?:socket|pipe|anon_inode|net):.*|/dev/(?:null|urandom|random)|/proc/.*")


def names():
    found = set()
    for place in PLACES:
        if os.path.isdir(place):
            found.update(os.path.join(place, name) for name in os.listdir(place))
    return found


def lines(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def descriptors(pid):
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[number] = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            pass
    return found


def held(pid, *own):
    """What a live process holds that would outlive it, but for files below the directories `own` and what it was given by us."""
    found = []
    for line in lines(f"/proc/{pid}/maps"):
        fields = line.split(None, 5)
        path = fields[5] if len(fields) > 5 else ""
        shared = fields[1][1] == "w" and fields[1][3] == "s"
        if shared or "memfd:" in path or path.startswith(PLACES) and not path.startswith(own):
            found.append(line)
    ours = descriptors("self").values()
    for number, path in descriptors(pid).items():
        if not TRANSIENT.fullmatch(path) and path not in ours and not path.startswith(own):
            found.append(f"descriptor {number}: {path}")
    return found


def left(pid, before):
    """What is there of a process, the first of its session, that was killed and waited for."""
    found = [name for name in names() - before if "granary" in name or re.search(rf"\b{pid}\b", name)]
    for kind in ("shm", "sem", "msg"):
        rows = [line.split() for line in lines(f"/proc/sysvipc/{kind}")]
        makers = [rows[0].index(key) for key in ("cpid", "lspid") if key in rows[0]] if rows else []
        found += [f"{kind} {row[1]}" for row in rows[1:] if any(row[at] == str(pid) for at in makers)]
    for entry in os.listdir("/proc"):
        stat = lines(f"/proc/{entry}/stat") if entry.isdigit() else []
        if stat and stat[0].rpartition(")")[2].split()[3] == str(pid):
            found.append(f"process {entry}: {stat[0]}")
    return found

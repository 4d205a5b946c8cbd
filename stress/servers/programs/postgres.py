"""postgres: pgbench on a cluster of its own, parallel and compiled queries, dump and restore; sums and
indexes checked."""
import glob
import os
import re
import signal

PACKAGES = ("postgresql", "postgresql-contrib")
LIMIT = 180


def tool(name):
    """The newest version's; Debian keeps them out of PATH."""

    def version(path):
        return [int(part) for part in re.findall(r"\d+", path)]

    found = sorted(
        glob.glob(f"/usr/lib/postgresql/*/bin/{name}") + glob.glob(f"/usr/pgsql-*/bin/{name}"), key=version
    )
    return found[-1] if found else name


NEEDS = tuple(tool(name) for name in ("postgres", "initdb", "pgbench", "psql", "pg_dump", "pg_amcheck"))
PROVEN = NEEDS[:5]
MEASURED = NEEDS[:1]

QUERIES = r"""
CREATE EXTENSION amcheck;
CREATE TABLE person AS
  SELECT i AS id, 'name' || (i * 7919 % 20011) AS name, 'town' || (i % 97) AS town, i * 1.5 AS score,
    jsonb_build_object('id', i, 'list', jsonb_build_array(i, i % 7, repeat('x', i % 60))) AS data
  FROM generate_series(1, 20000) i;
CREATE INDEX ON person (name);
CREATE INDEX ON person USING gin (data jsonb_path_ops);
CREATE INDEX ON person USING gist (int8range(id, id + 10));
ANALYZE person;
SELECT 'join', count(*), sum(a.score) FROM person a JOIN person b ON a.town = b.town AND b.id % 50 = 0;
SELECT 'sets', count(*), sum(length(t)) FROM
  (SELECT town, string_agg(name, ',' ORDER BY id) t FROM person GROUP BY town) x;
SELECT 'window', sum(r), sum(l) FROM (SELECT rank() OVER (PARTITION BY town ORDER BY score DESC) r,
  coalesce(lag(id) OVER (ORDER BY name, id), 0) l FROM person) x;
SELECT 'json', count(*), md5(jsonb_agg(data ORDER BY id)::text) FROM person WHERE data @> '{"list": [3]}';
SELECT 'array', md5(array_agg(name ORDER BY name DESC, id)::text),
  md5(xmlagg(xmlelement(name p, name) ORDER BY id)::text) FROM person;
SELECT 'regex', count(*) FROM person WHERE name ~ '(1[0-9]){2}'
  OR regexp_replace(town, '([0-9])\1', 'x') = 'townx';
WITH RECURSIVE w(n, t) AS (SELECT 1, 'a' UNION ALL SELECT n + 1, t || chr(97 + n % 26) FROM w WHERE n < 1500)
  SELECT 'recursive', count(*), md5(string_agg(t, '')) FROM w;
SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0;
SELECT 'compiled', sum(CASE WHEN id % 3 = 0 THEN score * 2 ELSE score + id END) FROM person WHERE id % 11 < 7;
SET jit = off;
SET work_mem = '256kB';
SELECT 'spilled', count(*), md5(string_agg(name, '' ORDER BY score DESC, id))
  FROM (SELECT DISTINCT * FROM person) x;
DO $$ DECLARE t text := ''; r record; BEGIN
  FOR i IN 1..2000 LOOP t := t || i::text;
    BEGIN IF i % 10 = 0 THEN RAISE EXCEPTION 'trouble %', i; END IF;
    EXCEPTION WHEN raise_exception THEN t := t || '!'; END;
  END LOOP; CREATE TABLE result AS SELECT t AS t; END $$;
SELECT 'procedure', length(t), md5(t) FROM result;
"""

BALANCES = """
SELECT 'tables', (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
  (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history),
  (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history),
  (SELECT count(*) FROM pgbench_history), (SELECT count(*) FROM pgbench_accounts);
"""


COPY = """
SELECT 'copy', count(*), sum(score), md5(string_agg(data::text, '' ORDER BY id)) FROM person;
"""

QUERY = """
SELECT town, count(*), string_agg(name, ',') FROM
  (SELECT 'town' || i % 97 AS town, 'name' || i AS name, jsonb_build_object('id', i, 'n', i % 7) AS data
   FROM generate_series(1, 3000) i) x
GROUP BY town ORDER BY max(data->>'id');
"""

SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "jit=off",
    "shared_buffers=32MB",
    "max_connections=40",
    "max_wal_size=200MB",
    "min_parallel_table_scan_size=0",
    "parallel_setup_cost=0",
    "parallel_tuple_cost=0",
)


class Cluster:
    """A server of its own below the run's directory, reached over 127.0.0.1 only."""

    def __init__(self, run, *settings):
        self.run = run
        self.user = run.user()
        self.data = run.path("data")
        if run.measuring:
            run.call("cp", "-a", run.once("cluster", self.create), self.data, bare=True)
        else:
            os.mkdir(self.data)
            self.create(self.data)
        settings = " ".join("-c " + setting for setting in (*SETTINGS, *settings))
        self.server = run.serve(
            lambda port: f"{tool('postgres')} -D {self.data} -p {port} {settings}",
            self.ready,
            cwd=self.data,
            user=self.user,
        )

    def create(self, path):
        os.chmod(path, 0o700)
        self.run.give(path, self.user)
        self.run.call(
            f"{tool('initdb')} -D {path} -U owner -A trust --no-locale -E UTF8 --no-sync",
            cwd=path,
            user=self.user,
            bare=self.run.measuring is not None,
        )

    def ready(self, port):
        line = f"{tool('psql')} {self.reach(port)} -d postgres -Atc 'SELECT 1'"
        return self.run.call(line, bare=True, status=(0, 1, 2)) == "1\n"

    def reach(self, port=None):
        return f"-h 127.0.0.1 -p {port or self.server.port} -U owner"

    def sql(self, text, database="postgres"):
        return self.run.call(
            f"{tool('psql')} -X {self.reach()} -At -q -v ON_ERROR_STOP=1 -d {database}", stdin=text
        )

    def bench(self, options):
        said = self.run.generate(f"{tool('pgbench')} {self.reach()} {options} postgres")
        self.run.want(
            "aborted" not in said and ("tps" in said or "-i" in options), "pgbench had errors", said
        )
        return said

    def stop(self):
        self.server.stop(signal.SIGINT)  # a fast shutdown
        log = self.server.said()
        found = re.search(
            r".*(terminated by signal|exited with exit code [^1]|PANIC|out of memory|server process).*", log
        )
        self.run.want(not found, f"the log says: {found.group() if found else ''}", log)


def work(run):
    cluster = Cluster(run)
    cluster.bench("-i -q -s 2")
    said = []
    cluster.bench("-n -c 8 -j 2 -t 250 --random-seed=7")
    cluster.server.check_maps()
    said.append(cluster.sql(BALANCES))
    cluster.bench("-n -S -c 8 -j 2 -t 1200 -M prepared")
    cluster.bench("-n -S -C -c 4 -j 2 -t 25")  # -C: a backend is born and dies for each transaction
    said.append(cluster.sql(QUERIES))
    cluster.server.check_maps()
    said.append(cluster.sql("VACUUM ANALYZE; REINDEX TABLE pgbench_accounts; CHECKPOINT; " + BALANCES))
    dump = run.call(f"{tool('pg_dump')} {cluster.reach()} -t person -t result postgres")
    cluster.sql("CREATE DATABASE copy")
    cluster.sql(dump, "copy")
    said.append(cluster.sql(COPY, "copy"))
    run.call(f"{tool('pg_amcheck')} {cluster.reach()} --heapallindexed -d postgres -t person -t pgbench_*")
    cluster.stop()
    return "".join(said)


def measure(run):
    cluster = Cluster(run, "max_parallel_workers_per_gather=0")
    cluster.bench("-i -q -s 5")

    def rate(row, transactions, options):
        def generator():
            said = cluster.bench(f"-n -c 8 -j 1 -t {transactions // 8} --random-seed=7 {options}")
            per_second = float(re.search(r"tps = ([\d.]+) \(without", said).group(1))
            return transactions / 1000, transactions / per_second

        return run.load(cluster.server, row, "k", True, generator)

    query = run.write("query.sql", QUERY)
    samples = [
        rate("postgres tpcb", 8000, ""),
        rate("postgres select", 40000, "-S"),
        rate("postgres query", 320, f"-f {query}"),
    ]
    cluster.stop()
    return samples

"""sqlite3: big transactions, indexes, joins, windows, JSON, full text search, rollback, vacuum,
integrity_check."""
PACKAGES = ("sqlite3",)
NEEDS = ("sqlite3",)
PROVEN = ("sqlite3",)

SCRIPT = r"""
.bail on
PRAGMA journal_mode = wal;
PRAGMA synchronous = off;
PRAGMA cache_size = -4000;
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, town TEXT, score REAL, note BLOB);
CREATE TABLE entry(id INTEGER PRIMARY KEY, person INTEGER REFERENCES person, at INTEGER, text TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO person SELECT i, 'name' || (i * 7919 % 40009), 'town' || (i % 97), i * 1.5, zeroblob(i % 300)
  FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO entry SELECT i, i * 31 % 20000 + 1, i * 17 % 100000,
  substr('a text that is cut at some place or another', 1, i % 43) FROM n;
COMMIT;
CREATE INDEX person_name ON person(name);
CREATE INDEX person_town ON person(town, score DESC);
CREATE INDEX entry_person ON entry(person, at);
CREATE UNIQUE INDEX entry_at ON entry(at, id) WHERE length(text) > 10;
ANALYZE;
SELECT 'join', count(*), sum(p.score), sum(length(e.text)) FROM person p JOIN entry e ON e.person = p.id
  WHERE p.town IN ('town3', 'town5', 'town90');
SELECT 'group', town, count(*), total(score), length(group_concat(name)) FROM person
  GROUP BY town ORDER BY 3 DESC, 2 LIMIT 5;
SELECT 'window', sum(r), sum(d) FROM
  (SELECT rank() OVER (PARTITION BY town ORDER BY score DESC) r,
    dense_rank() OVER (ORDER BY length(note)) d FROM person);
SELECT 'sorted', name, text FROM person p JOIN entry e ON e.person = p.id
  ORDER BY text DESC, name, e.id LIMIT 3 OFFSET 25000;
BEGIN;
UPDATE person SET note = randomblob(200 + id % 500), name = name || ' changed' WHERE id % 3 = 0;
DELETE FROM entry WHERE person % 5 = 0;
SAVEPOINT inner_part;
UPDATE entry SET text = upper(text) || text;
ROLLBACK TO inner_part;
SELECT 'inside', count(*), sum(length(text)) FROM entry;
ROLLBACK;
BEGIN;
DELETE FROM entry WHERE at % 7 = 0;
UPDATE person SET score = score * 2 WHERE town < 'town5';
INSERT INTO person SELECT id + 100000, upper(name), town, -score, note FROM person WHERE id % 4 = 0
  ON CONFLICT DO NOTHING;
COMMIT;
SELECT 'after', count(*), total(score) FROM person;
SELECT 'json', count(*), sum(json_extract(j, '$.score')), sum(json_array_length(j, '$.list')) FROM
  (SELECT json_object('name', name, 'score', id, 'list', json_array(id, town, score)) j
   FROM person WHERE id < 10000);
SELECT 'json group', length(json_group_array(json_object('n', name, 't', town))) FROM person;
CREATE VIRTUAL TABLE words USING fts5(body);
INSERT INTO words SELECT name || ' ' || town || ' lives there since ' || id FROM person WHERE id < 8000;
SELECT 'search', count(*) FROM words WHERE words MATCH 'town7 AND lives';
INSERT INTO words(words) VALUES ('optimize');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
INSERT INTO boxes SELECT id, id % 300, id % 300 + 5, id % 211, id % 211 + 9 FROM person WHERE id < 10000;
SELECT 'boxes', count(*) FROM boxes WHERE x0 > 10 AND x1 < 60 AND y0 > 20 AND y1 < 100;
CREATE TRIGGER counted AFTER DELETE ON person BEGIN DELETE FROM entry WHERE person = old.id; END;
DELETE FROM person WHERE id BETWEEN 500 AND 3000;
SELECT 'triggered', (SELECT count(*) FROM person), (SELECT count(*) FROM entry);
PRAGMA integrity_check;
PRAGMA foreign_key_check;
VACUUM;
PRAGMA integrity_check;
"""

LOAD = r"""
PRAGMA journal_mode = off;
PRAGMA synchronous = off;
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, town TEXT, score REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
INSERT INTO t SELECT i, 'name' || (i * 7919 % 250007), 'town' || (i % 997), i * 1.5 FROM n;
COMMIT;
CREATE INDEX a ON t(name);
CREATE INDEX b ON t(town, score);
SELECT count(*), sum(length(j)) FROM
  (SELECT json_object('name', name, 'town', town, 'list', json_array(id, score, name || town)) j FROM t);
SELECT town, group_concat(name) FROM t GROUP BY town HAVING length(group_concat(name)) < 0;
SELECT count(*) FROM (SELECT DISTINCT substr(name, 1, 7), town FROM t);
SELECT sum(r) FROM (SELECT rank() OVER (PARTITION BY town ORDER BY score DESC) r FROM t);
SELECT count(*) FROM t x JOIN t y ON y.name = 'name' || (x.id * 13 % 250007);
"""


def work(run):
    said = run.call("sqlite3 base.db", stdin=SCRIPT)
    dumped = run.call("sqlite3 base.db '.dump entry'")
    again = "SELECT count(*), sum(at) FROM entry; PRAGMA integrity_check;"
    return said + run.call("sqlite3 copy.db", stdin=dumped + again)


def measure(run):
    script = run.write("load.sql", LOAD)
    return [run.gauge("sqlite3", "run", 1, f"sqlite3 -init {script} :memory: ''")]

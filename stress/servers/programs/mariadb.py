"""mariadb: concurrent clients on InnoDB and Aria, transactions, big sorts and joins; sums, CHECK TABLE and
a restart."""
import os
import re
import socket

PACKAGES = ("mariadb-server", "mariadb-client")
NEEDS = ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-slap")
PROVEN = ("mariadbd", "mariadb", "mariadb-slap")
MEASURED = ("mariadbd",)
LIMIT = 180

SCHEMA = """
CREATE TABLE account (id INT PRIMARY KEY, owner VARCHAR(40), balance BIGINT, note TEXT, KEY (owner))
  ENGINE=InnoDB;
CREATE TABLE history (id INT AUTO_INCREMENT PRIMARY KEY, one INT, two INT, delta BIGINT, at TIMESTAMP)
  ENGINE=InnoDB;
CREATE TABLE words (id INT PRIMARY KEY, word VARCHAR(60), data LONGTEXT, FULLTEXT (data)) ENGINE=Aria;
INSERT INTO account SELECT seq, CONCAT('owner', seq * 7919 % 5003), 1000, REPEAT('n', seq % 300)
  FROM seq_1_to_6000;
INSERT INTO words SELECT seq, CONCAT('word', seq * 31 % 1009),
  CONCAT('some text', seq % 50, ' number', seq, ' ', REPEAT('y ', seq % 90)) FROM seq_1_to_3000;
DELIMITER //
CREATE PROCEDURE move(a INT, b INT, amount BIGINT) BEGIN
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END;
  START TRANSACTION;
  UPDATE account SET balance = balance - amount WHERE id = LEAST(a, b);
  UPDATE account SET balance = balance + amount, note = CONCAT(LEFT(note, 200), amount)
    WHERE id = GREATEST(a, b);
  INSERT INTO history (one, two, delta) VALUES (a, b, amount);
  COMMIT;
END //
DELIMITER ;
"""

QUERIES = r"""
SELECT 'sums', SUM(balance), COUNT(*) FROM account;
SELECT 'join', COUNT(*), SUM(LENGTH(a.note) > 0) FROM words a1
  JOIN account a ON a.id = a1.id JOIN account b ON b.owner = a.owner;
SELECT 'group', MD5(GROUP_CONCAT(word, n ORDER BY word SEPARATOR ',')) FROM
  (SELECT word, COUNT(*) n FROM words GROUP BY word) x;
SELECT 'window', SUM(r) FROM (SELECT RANK() OVER (PARTITION BY LEFT(owner, 6) ORDER BY id) r FROM account) x;
SELECT 'json', MD5(JSON_ARRAYAGG(JSON_OBJECT('w', word, 'n', id))) FROM
  (SELECT * FROM words ORDER BY id LIMIT 1500) x;
SELECT 'text', COUNT(*) FROM words WHERE MATCH (data) AGAINST ('+text7 +number7' IN BOOLEAN MODE);
SELECT 'regex', SUM(LENGTH(REGEXP_REPLACE(data, '([0-9])\\1', 'x'))) FROM words;
WITH RECURSIVE n(i, t) AS (SELECT 1, CAST('a' AS CHAR(2000))
    UNION ALL SELECT i + 1, CONCAT(t, 'b') FROM n WHERE i < 900)
  SELECT 'recursive', COUNT(*), SUM(LENGTH(t)) FROM n;
SET sort_buffer_size = 32768, tmp_memory_table_size = 65536;
SELECT 'spilled', MD5(GROUP_CONCAT(id ORDER BY n)) FROM
  (SELECT id, ROW_NUMBER() OVER (ORDER BY word DESC, data, id) n FROM words) x WHERE n < 150;
ALTER TABLE account ADD COLUMN extra INT DEFAULT 7, ADD KEY (balance, id);
SELECT 'altered', SUM(extra) FROM account;
CHECK TABLE account, history, words EXTENDED;
"""


WRITE = "CALL move(1 + FLOOR(RAND() * 6000), 1 + FLOOR(RAND() * 6000), {amount})"

READ = """SELECT a.id, MD5(GROUP_CONCAT(a.note, b.owner)) FROM account a JOIN account b ON b.id = a.id + 1
WHERE a.id BETWEEN 100 AND 120 GROUP BY a.owner ORDER BY 2"""

MOVED = """
SELECT 'moved', (SELECT SUM(balance) FROM account), (SELECT COUNT(*) FROM history);
"""

RESTARTED = """
SELECT 'restarted', SUM(balance), COUNT(*) FROM account;
CHECK TABLE account, words;
"""


class Server:
    """A server of its own below the run's directory, reached over 127.0.0.1 only."""

    def __init__(self, run):
        self.run = run
        self.user = run.user()
        self.data = run.path("data")
        if not os.path.exists(self.data):
            run.call("cp", "-a", run.once("data-as-new", self.create), self.data, bare=True)
        self.server = run.serve(self.command, self.ready, cwd=self.data, user=self.user)

    def command(self, port):
        return (
            f"mariadbd --no-defaults --datadir={self.data} --pid-file={self.data}/pid --port={port} "
            f"--tmpdir={self.run.path('tmp')} --socket={self.run.path('tmp')}/socket "
            "--bind-address=127.0.0.1 --skip-name-resolve "
            "--innodb-flush-method=nosync --innodb-flush-log-at-trx-commit=2 --innodb-buffer-pool-size=48M "
            "--performance-schema=OFF --skip-log-bin"
        )

    def create(self, path):
        os.chmod(path, 0o700)
        self.run.give(path, self.user)
        self.run.call(
            f"mariadb-install-db --no-defaults --datadir={path} --auth-root-authentication-method=normal "
            "--skip-test-db --skip-name-resolve --innodb-flush-method=nosync",
            user=self.user,
            cwd=path,
            bare=True,
        )

    @staticmethod
    def ready(port):
        """The server speaks first; a greeting of protocol 10 means that it takes clients."""
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                return probe.recv(5)[4:] == b"\x0a"
        except OSError:
            return False

    def reach(self):
        return f"--no-defaults --protocol=tcp -h127.0.0.1 -P{self.server.port} -uroot"

    def sql(self, text, database="bank"):
        return self.run.call(f"mariadb {self.reach()} -N -B -D{database}", stdin=text)

    def slap(self, query, clients, each):
        return self.run.generate(
            f"mariadb-slap {self.reach()} --create-schema=bank --no-drop --delimiter=; "
            f"--concurrency={clients} --number-of-queries={clients * each}",
            f"--query={query}",
        )

    def stop(self):
        self.server.stop()
        log = self.server.said()
        found = re.search(r".*(got signal|Assertion|corrupt|Out of memory).*", log)
        self.run.want(not found, f"the log says: {found.group() if found else ''}", log)


def fill(server):
    server.sql("CREATE DATABASE bank", "mysql")
    server.sql(SCHEMA)


def work(run):
    server = Server(run)
    fill(server)
    said = [server.sql(QUERIES.split("SET sort")[0])]
    server.slap(WRITE.format(amount="FLOOR(RAND() * 90)"), 12, 120)
    server.slap(READ, 12, 40)
    server.server.check_maps()
    said.append(server.sql(MOVED + QUERIES[QUERIES.index("SET sort") :]))
    server.stop()
    server = Server(run)
    said.append(server.sql(RESTARTED))
    server.stop()
    return "".join(said)


def measure(run):
    server = Server(run)
    fill(server)

    def rate(row, clients, each, query):
        def generator():
            said = server.slap(query, clients, each)
            seconds = re.search(r"Average number of seconds to run all queries: ([\d.]+)", said).group(1)
            return clients * each / 1000, max(float(seconds), 0.001)

        return run.load(server.server, row, "k", False, generator)

    samples = [rate("mariadb write", 8, 500, WRITE.format(amount=5)), rate("mariadb read", 8, 300, READ)]
    server.stop()
    return samples

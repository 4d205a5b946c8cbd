"""php: arrays, strings, JSON, sorting, regular expressions, with its own heap and with all of it from
malloc."""
PACKAGES = ("php-cli",)
NEEDS = ("php",)
PROVEN = ("php",)

SCRIPT = r"""<?php
$count = [];
for ($i = 0; $i < 200000; $i++) { $w = "word" . ($i * 7919 % 20011); $count[$w] = ($count[$w] ?? 0) + 1; }
ksort($count);
echo "count ", count($count), " ", md5(json_encode($count)), "\n";
$rows = [];
for ($i = 0; $i < 5000; $i++)
    $rows[] = ["id" => $i, "name" => str_repeat("n", $i % 90), "tags" => range(0, $i % 20), "x" => $i / 7];
for ($i = 0; $i < 6; $i++) $rows = json_decode(json_encode($rows), true);
echo "json ", md5(json_encode($rows)), "\n";
$text = "";
for ($i = 0; $i < 60000; $i++) $text .= "item $i " . str_repeat("z", $i % 40) . "\n";
$changed = preg_replace_callback('/(\d+) z{3,5}\n/', fn($m) => "<$m[1]>", $text);
echo "regex ", md5($changed), " ", count(explode("\n", $changed)), "\n";
usort($rows, fn($a, $b) => [strlen($b["name"]), $a["id"]] <=> [strlen($a["name"]), $b["id"]]);
echo "sort ", $rows[0]["id"], " ", md5(serialize($rows)), "\n";
class Node { public $next; public $other; public $data; }
for ($r = 0; $r < 5; $r++) {
    $first = $last = new Node;
    for ($i = 0; $i < 40000; $i++) {
        $n = new Node;
        $n->other = $last;
        $n->data = str_repeat("d", $i % 64);
        $last->next = $n;
        $last = $n;
    }
    unset($first, $last, $n);
    echo "cycles ", gc_collect_cycles() > 0 ? "gone" : "none", "\n";
}
function numbers($n) { for ($i = 0; $i < $n; $i++) yield str_repeat(chr(97 + $i % 26), $i % 1000); }
$sum = 0; foreach (numbers(50000) as $s) $sum += strlen($s);
echo "generator $sum\n";
$packed = gzencode(serialize($rows), 6);
echo "zlib ", md5(gzdecode($packed)), "\n";
"""


def work(run):
    path = run.write("script.php", SCRIPT)
    own = run.call("php", "-n", "-d", "memory_limit=-1", path)
    every = run.call("php", "-n", "-d", "memory_limit=-1", path, env={"USE_ZEND_ALLOC": "0"})
    run.want(own == every, "USE_ZEND_ALLOC=0 says something else", every)
    return own


def measure(run):
    path = run.write("script.php", SCRIPT)
    return [
        run.gauge(
            "php malloc", "run", 1, "php", "-n", "-d", "memory_limit=-1", path, env={"USE_ZEND_ALLOC": "0"}
        )
    ]

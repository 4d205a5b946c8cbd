"""ruby: collection at every allocation and by compaction, threads, fibers, forks, Marshal, JSON, big
strings."""
PACKAGES = ("ruby",)
NEEDS = ("ruby",)
PROVEN = ("ruby",)

SCRIPT = r"""
require 'json'; require 'digest'; require 'zlib'; require 'set'
def digest(value) = Digest::SHA256.hexdigest(value.inspect)[0, 16]

def stressed
  GC.stress = true
  list = (1..12).map { |i| { "key#{i}" => "v" * i, list: [i, i.to_s, i.to_f] } }
  text = JSON.generate(list)
  back = JSON.parse(text)
  [text.size, back.last["list"]]
ensure
  GC.stress = false
end
puts "stress #{stressed.inspect}"

words = Hash.new(0)
150_000.times { |i| words["word#{i * 7919 % 20011}"] += 1 }
puts "count #{words.size} #{digest(words.sort_by { |k, v| [-v, k] }.first(50))}"

text = +""
20_000.times { |i| text << "item #{i} " << "z" * (i % 40) << "\n" }
puts "text #{text.size} #{digest(text.gsub(/(\d)\1/) { "<#{$1}>" })} #{text.scan(/7 z+/).size}"
puts "marshal #{digest(Marshal.load(Marshal.dump(words)).size)} #{Zlib.inflate(Zlib.deflate(text)) == text}"

results = 8.times.map do |n|
  Thread.new do
    kept = []
    3000.times { |i| kept << ("x" * ((i * n) % 900)); kept.shift if kept.size > 500 }
    kept.sum(&:size)
  end
end.map(&:value)
puts "threads #{results.inspect}"

queue = Queue.new
maker = Thread.new { 20_000.times { |i| queue << "message #{i}" * (i % 5) }; queue << nil }
total = 0
while (message = queue.pop); total += message.size; end
maker.join
puts "queue #{total}"

objects = (1..30_000).map { |i| [i.to_s * 3, i.to_f, { i => i }] }
objects = objects.each_slice(3).map(&:first)
GC.start(full_mark: true, immediate_sweep: true)
GC.compact if GC.respond_to?(:compact)
puts "compact #{digest(objects)}"

fibers = (1..500).map { |n| Fiber.new { 5.times { |i| Fiber.yield "f#{n}" * i }; n } }
6.times { fibers.each(&:resume) }
puts "fibers #{fibers.count(&:alive?)}"

children = 6.times.map do |n|
  reader, writer = IO.pipe
  pid = fork do
    reader.close
    GC.start
    local = (1..5000).map { |i| objects[i * n % objects.size].inspect }
    writer.write digest(local)
    writer.close
    exit! n
  end
  writer.close
  [pid, reader]
end
children.each { |pid, reader| puts "child #{reader.read} #{Process.wait2(pid)[1].exitstatus}" }
puts "big #{(3 ** 20_000).to_s.size} #{digest((1..400).inject(:*))}"
big = ("a".."z").map { |c| c * 500_000 }
big.map! { |s| s + s.reverse }
puts "strings #{big.sum(&:size)} #{Zlib.crc32(big.join)}"
puts "set #{Set.new(objects.map(&:first)).size} #{`echo shell`.strip}"
"""

LOAD = r"""
require 'json'
store = {}
total = 0
60.times do |i|
  rows = (0...300).map do |j|
    { id: j, name: "user #{i} #{j}", tags: (0...8).map { |k| "t#{(i + j + k) % 50}" }, text: "x" * (j % 300) }
  end
  text = JSON.generate(rows)
  store[i % 20] = JSON.parse(text)
  total += text.size
end
words = {}
400_000.times { |i| key = "w#{i * 7919 % 100_003}"; words[key] = (words[key] || "") + "yyyyyyyyyy" }
puts total, words.size
"""


def work(run):
    return run.call("ruby", run.write("script.rb", SCRIPT))


def measure(run):
    return [run.gauge("ruby", "run", 1, "ruby", run.write("load.rb", LOAD))]

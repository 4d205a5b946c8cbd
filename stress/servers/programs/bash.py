"""bash: arrays, string building, subshells, pipes, here documents, traps and coprocesses in one script."""
PACKAGES = ("bash", "coreutils")
NEEDS = ("bash",)
PROVEN = ("bash", "sort", "tr")

SCRIPT = r"""
set -eu
declare -A count
declare -a words=()
for i in {1..4000}; do
    word="w$(( (i * 7919) % 613 ))"
    words+=("$word")
    count[$word]=$(( ${count[$word]:-0} + 1 ))
done
echo "words ${#words[@]} distinct ${#count[@]}"
for key in "${!count[@]}"; do echo "$key ${count[$key]}"; done | sort | cksum
printf '%s\n' "${words[@]}" | sort | uniq -c | sort -rn | head -3

text=""
for i in {1..3000}; do text+="line $i of a growing text;"; done
echo "length ${#text}"
echo "${text//growing/shrinking}" | cksum
IFS=';' read -r -a parts <<< "$text"
echo "parts ${#parts[@]} last ${parts[-1]}"
unset 'parts[10]' 'parts[20]'
echo "after unset ${#parts[@]}"

for i in {1..60}; do
    ( x=("${words[@]:0:100}"); echo "$i ${#x[@]} $(echo "${x[*]}" | tr a-z A-Z | cksum)" )
done | cksum

fib() { if (( $1 < 2 )); then echo "$1"; else echo $(( $(fib $(( $1 - 1 ))) + $(fib $(( $1 - 2 ))) )); fi; }
echo "fib $(fib 9)"

coproc doubler { while read -r n; do echo $(( n * 2 )); done; }
for i in {1..500}; do echo "$i" >&"${doubler[1]}"; read -r answer <&"${doubler[0]}"; done
echo "coprocess said $answer"
exec {doubler[1]}>&-
wait

trap 'echo "trapped"' USR1
kill -USR1 $$
for i in {1..20}; do ( exit $(( i % 3 )) ) & done
wait
cat <<END | while read -r a b; do echo "$b $a"; done
$(for i in {1..200}; do echo "$i item$i"; done)
END
[[ $text =~ line\ (29[0-9]+)\ of ]] && echo "matched ${BASH_REMATCH[1]}"
mapfile -t lines < <(seq 1 20000)
echo "mapped ${#lines[@]} ${lines[19999]}"
set -- "${lines[@]:0:5000}"
while (( $# > 1 )); do shift 1000 || shift; done
echo "left $*"
"""


def work(run):
    return run.call("bash", run.write("script.sh", SCRIPT))

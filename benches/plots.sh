#!/usr/bin/env bash
# How what an event costs grows with connections, streams, topics, size and history: the harness makes the loads,
# and draws docs/plots. Takes some ten minutes; where to write is an argument.
set -euo pipefail
cd "$(dirname "$0")/.."
plots="${1:-docs/plots}"
reports=target/plots
rm -rf "$reports"
mkdir -p "$reports" "$plots"
ulimit -n "$(ulimit -Hn)"

# A chart, and what varies in it, over each protocol.
run() { # chart, value, protocol, arguments of the bench
    local file="$reports/$1-$3-$2.json"
    echo "$1: $2 over HTTP/$3"
    target/release/seventh bench "${@:4}" --http "$3" -d 3s --pin --json "$file" >/dev/null
}
draw() { # chart, arguments of the plot
    target/release/seventh bench plot "$reports/$1"-*.json --svg "$plots/$1.svg" "${@:2}"
}

for http in 1.1 2 3; do
    for n in 1 3 10 30 100 300 1000; do
        run connections $n $http -c $n -s 1 -r $((n > 100 ? 10000 / n : 100))
    done
done
draw connections --along connections

for http in 2 3; do
    for n in 1 3 10 30 100 240; do
        run streams $n $http -c 10 -s $n -r 50
        run memory $n $http hold -c 100 -s $n
    done
done
draw streams --along streams
draw memory --along streams --figure memory

for http in 2 3; do
    for n in 1 3 10 30 100 300 1000; do
        run topics $n $http -c 10 -s 100 --topics $n -r $((n * 10))
    done
    for n in 100 300 1000 3000 10000 30000 100000; do
        run size $n $http -c 10 -s 10 --size $n -r 20
    done
    for n in 1 3 10 30 100 300 1000; do
        run history $n $http replay --missed $n
    done
done
draw topics --along topics
draw size --along size
draw history --along missed --stage replay

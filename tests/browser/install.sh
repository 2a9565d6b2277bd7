#!/usr/bin/env bash
# Installs what the tests need and the machine lacks, and says so: Debian packages, npm packages
# and PyPI packages, by name. A Rust toolchain is there already, or nothing here could be built.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need cc gcc
need curl curl
need chromium chromium
need firefox-esr firefox-esr
need WebKitWebDriver webkit2gtk-driver
need xvfb-run xvfb
need xauth xauth
need node nodejs
need npm npm
need php php-cli
need python3 python3
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
need strace strace
need valgrind valgrind
need faketime faketime
need prlimit util-linux
[ -x /usr/sbin/nginx ] || need nginx nginx-light

if [ ${#missing[@]} -gt 0 ]; then
    echo "installing Debian packages: ${missing[*]}"
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

for component in rustfmt clippy; do
    if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
        echo "installing the Rust component $component"
        rustup component add "$component"
    fi
done

packages="playwright-core puppeteer-core eventsource event-source-polyfill @microsoft/fetch-event-source extended-eventsource express ws"
for package in $packages; do
    if [ ! -d "node_modules/$package" ]; then
        echo "installing npm packages: $packages"
        npm ci --no-audit --no-fund --ignore-scripts
        break
    fi
done

# In an environment of their own, beside the npm packages; anew whenever what is asked for changes.
if ! cmp -s requirements.txt venv/requirements.txt; then
    echo "installing PyPI packages: $(cut -d'>' -f1 requirements.txt | paste -sd ' ')"
    python3 -m venv --clear venv
    venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt venv/
fi

# HTTP/2's conformance tests, for `make conformance`.
h2spec="github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
if [ -x bin/h2spec ]; then
    :
elif command -v go >/dev/null 2>&1; then
    echo "installing the Go program h2spec"
    GOBIN="$PWD/bin" GOFLAGS=-modcacherw go install "$h2spec" || echo "h2spec could not be installed: make conformance cannot run"
else
    echo "Go is not here, which builds h2spec: make conformance cannot run"
fi

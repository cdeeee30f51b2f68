#!/usr/bin/env bash
# Installs what the tests need and runs them all.
#
#   tests/run.sh          what guards main: formatting, lints, documentation, every test
#   tests/run.sh --all    the same and the long runs: benchmarks with their goal lines
#
# MTUN_VM=skip leaves out the kernel module, which is tried on a kernel under emulation; the last
# line says so.
#
# Needs Debian 12 or newer, root (network namespaces, TUN, nftables) and Rust. A test that lacks
# a right or a program says SKIPPED with the reason; the skips are counted at the end, and as
# root with everything installed there must be none.
set -euo pipefail
cd "$(dirname "$0")/.."
all=no
[ "${1:-}" = --all ] && all=yes

say() { printf '\n== %s\n' "$*"; }

need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
missing=()
need nft nftables
need ip iproute2
need tshark tshark
need tcpdump tcpdump
need ping iputils-ping
need cc gcc
need ssh openssh-client
# A bus of the tests' own, for the stand-in of a modem.
need dbus-daemon dbus-daemon
need ethtool ethtool
need valgrind valgrind
need shellcheck shellcheck
need chromium chromium
need tmux tmux
# The programs of the fast path are built again and compared with the object that is checked in.
need clang clang
need llvm-strip llvm
[ -e /usr/include/bpf/bpf_helpers.h ] || missing+=(libbpf-dev)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# A second reader of our messages, apart from everything the system's Python has.
venv="${CARGO_TARGET_DIR:-target}/scapy"
if ! "$venv/bin/python3" -c 'import scapy' >/dev/null 2>&1; then
    say "installing scapy into $venv"
    python3 -m venv "$venv" 2>/dev/null || {
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
        python3 -m venv "$venv"
    }
    "$venv/bin/pip" install -q 'scapy>=2.5,<3'
fi
# And the hand that leads the browser.
"$venv/bin/python3" -c 'import websocket' >/dev/null 2>&1 || "$venv/bin/pip" install -q 'websocket-client>=1.7,<2'
MTUN_PYTHON="$(cd "$venv" && pwd)/bin/python3"
export MTUN_PYTHON

# What guards main is the same each time: properties are tried on the lives of one seed. The long
# run draws new ones.
[ "$all" = yes ] || export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-5648}"

# Nothing here is built twice: what incremental builds keep would only fill the disk.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

# Prometheus and its checker, unpacked and not installed: the package would start a server here.
prometheus="${CARGO_TARGET_DIR:-target}/prometheus"
if [ ! -x "$prometheus/usr/bin/promtool" ]; then
    say "unpacking prometheus into $prometheus"
    mkdir -p "$prometheus"
    (
        cd "$prometheus"
        apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg -x prometheus_*.deb . && rm prometheus_*.deb
    )
fi
MTUN_PROMETHEUS="$(cd "$prometheus/usr/bin" && pwd)"
export MTUN_PROMETHEUS

MTUN_SKIPS="$(mktemp)"
export MTUN_SKIPS
trap 'rm -f "$MTUN_SKIPS"' EXIT

say "formatting"
cargo fmt --all --check
say "scripts"
find . -name target -prune -o -type f \( -name '*.sh' -o -path './packaging/debian/*p*' -not -name 'control.in' \) \
    -print0 | xargs -0 shellcheck
shellcheck --shell=sh packaging/openwrt/mtun/files/mtun.init
say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
say "each role alone"
for role in mobile agent correspondent; do
    cargo clippy -q -p mtun-signaling --no-default-features --features "$role" --locked -- -D warnings
    cargo clippy -q -p mtun --no-default-features --features "$role" --locked -- -D warnings
done
say "the cores without a system below them"
# What tests/house.rs says of their dependencies and sources, built and tried: no device, no socket,
# no file, no clock.
cargo test -q --locked -p mtun-policy -p mtun-signaling -p mtun-dataplane -p mtun-simulation \
    --no-default-features \
    --features mtun-signaling/mobile,mtun-signaling/agent,mtun-signaling/correspondent
say "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
say "tests"
cargo test --workspace --locked
say "the main job, as a user runs it"
# The programs that the tests were run with; building them alone would build the world again.
"${CARGO_TARGET_DIR:-target}/debug/mtun" demo --json >"${CARGO_TARGET_DIR:-target}/demo.json"
python3 - "${CARGO_TARGET_DIR:-target}/demo.json" <<'PY'
import json, sys
document = json.load(open(sys.argv[1]))
result = document.get("result", document)
assert result["ok"] is True, result.get("reasons")
print("demo ok")
PY

left_out=""
if [ "${MTUN_VM:-}" = skip ]; then
    say "LEFT OUT: kmod-mtun on a kernel under emulation, because MTUN_VM=skip was said"
    left_out=", 1 stage left out by MTUN_VM=skip"
elif [ "$all" = yes ]; then
    say "kmod-mtun, and the kernel's own Mobile IPv6, on both kernels under emulation"
    bash tests/vm/run.sh
else
    say "kmod-mtun on a kernel under emulation"
    bash tests/vm/run.sh 6.1
fi

if [ "$all" = yes ]; then
    say "the package, in a clean Debian root"
    command -v debootstrap >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap
    bash tests/package.sh "${CARGO_TARGET_DIR:-target}/debug"
    say "the unit, and the pages on machines with systemd"
    for program in strace systemd-nspawn; do
        command -v "$program" >/dev/null 2>&1 ||
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends strace systemd-container
    done
    bash tests/unit.sh "${CARGO_TARGET_DIR:-target}/debug"
    bash tests/road.sh "${CARGO_TARGET_DIR:-target}/debug"
    say "static programs"
    command -v musl-gcc >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends musl-tools
    bash packaging/static.sh "${CARGO_TARGET_DIR:-target}/static"
    bash tests/static.sh "${CARGO_TARGET_DIR:-target}/static"
    say "twenty thousand simulated lives"
    MTUN_SEEDS=20000 cargo test -p mtun-simulation --test seeds --locked
    say "a thousand deaths of an agent, ten thousand power cuts of its disk"
    MTUN_KILLS=1000 cargo test --test lab --locked -- kills --nocapture
    MTUN_CRASHES=10000 cargo test --lib --locked -- store::database
    say "ten minutes of links, policies and flows that come and go"
    MTUN_CHURN_SECONDS=600 cargo test --test lab --locked -- churn --nocapture
    say "benchmarks"
    cargo bench --locked
fi

say "requirements"
cargo run -q --locked -p mtun-conformance -- rfc | grep '^RFC'
cargo run -q --locked -p mtun-conformance | tail -n 1

skipped=$(wc -l <"$MTUN_SKIPS")
if [ "$skipped" -gt 0 ]; then
    say "$skipped skipped"
    cat "$MTUN_SKIPS"
    if [ "$(id -u)" = 0 ]; then
        echo "as root with everything installed nothing may be skipped" >&2
        exit 1
    fi
fi
say "all green, $skipped skipped$left_out"

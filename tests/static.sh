#!/bin/bash
# Static programs as packaging/static.sh makes them: they run in an empty root, and the small world of
# the demo runs by them, within a budget of memory.
#
#   tests/static.sh PROGRAMS
#
# PROGRAMS is a directory with mtund and mtun. Needs root. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="$(cd "$1" && pwd)"
# Resident memory of a daemon that carries packets, in KiB: a router's and an agent's, tables included.
budget=$((40 << 10))

place="$(mktemp -d)"
mtun="$place/bin/mtun"
end() {
    # It says so if there is nothing to stop.
    [ ! -e "$place/kept" ] || "$mtun" demo --stop >/dev/null 2>&1 || true
    rm -rf --one-file-system "$place"
}
trap end EXIT
fail() {
    echo "static: $*" >&2
    exit 1
}

mkdir "$place/empty" "$place/bin"
for program in mtund mtun; do
    cp "$programs/$program" "$place/bin/$program"
    cp "$programs/$program" "$place/empty/$program"
    chroot "$place/empty" "/$program" --version || fail "$program does not run in an empty root"
done
cp examples/city-bus.kdl examples/cdn.txt "$place/empty/"
cp -r examples/site.d "$place/empty/"
chroot "$place/empty" /mtun policy check /city-bus.kdl >/dev/null 2>&1 || fail "it cannot read a policy there"

touch "$place/kept"
"$mtun" demo --keep --json >"$place/demo.json" 2>"$place/demo.log" ||
    { tail -n 30 "$place/demo.log"; fail "the demo"; }
most=0
daemons=0
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe" || true)" = "$place/bin/mtund" ] || continue
    daemons=$((daemons + 1))
    resident="$(awk '/^VmRSS:/ { print $2 }' "$process/status")"
    [ "$resident" -le "$most" ] || most="$resident"
done
[ "$daemons" -ge 2 ] || fail "$daemons daemons are there to be looked at"
verdict="$([ "$most" -le "$budget" ] && echo met || echo missed)"
echo "goal static-mtund-resident-KiB $most <= $budget $verdict"
[ "$verdict" = met ] || exit 1
echo "static ok"

#!/bin/bash
# Two builds, up and down: what one has written down and promised, the other holds.
#
#   tests/versions.sh BEFORE NOW
#
# Both are directories with mtund and mtun. The small world of the demo is made by BEFORE. Then its
# home agent and its router are killed and started by NOW, by BEFORE and by NOW again, with the same files
# and the same words. Each time the agent holds every binding before anybody registers anew, and the
# router is reached at its home address. Needs root. Nothing is left behind.
set -euo pipefail
before="$(cd "$1" && pwd)"
now="$(cd "$2" && pwd)"

place="$(mktemp -d)"
started=()
end() {
    for id in "${started[@]}"; do
        kill -TERM "$id" 2>/dev/null || true
    done
    wait
    "$before/mtun" demo --stop >/dev/null 2>&1 || true
    rm -rf --one-file-system "$place"
}
trap end EXIT
fail() {
    echo "versions: $*" >&2
    exit 1
}

# Daemons of the world: SIDE.id, SIDE.words, SIDE.network.
"$before/mtun" demo --keep --json >"$place/demo.json" 2>"$place/demo.log" ||
    { tail -n 30 "$place/demo.log"; fail "the demo"; }
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe" || true)" = "$before/mtund" ] || continue
    mapfile -d '' -t words <"$process/cmdline"
    case "${words[*]}" in
    *home-agent.kdl*) side=agent ;;
    *) side=router ;;
    esac
    printf '%s\n' "${words[@]:1}" >"$place/$side.words"
    echo "${process#/proc/}" >"$place/$side.id"
    ip netns identify "${process#/proc/}" >"$place/$side.network"
done
for side in agent router; do
    [ -e "$place/$side.id" ] || fail "no $side to look at"
done

word() { # word SIDE OPTION: what is said behind it
    grep -A 1 -x -e "$2" "$place/$1.words" | tail -n 1
}
say() { # say SIDE WORD...: by the command line of NOW
    "$now/mtun" --socket "$(word "$1" --socket)" "${@:2}" --json || true
}
# What the agent holds: home address, BID and care-of address of each binding.
held() {
    say agent status | python3 -c '
import json, sys
for mobile in json.load(sys.stdin)["result"]["mobiles"]:
    for it in mobile["bindings"]:
        print(mobile["home_address"], it["bid"], it["care_of"])'
}
registered() {
    say router status | python3 -c '
import json, sys
bindings = json.load(sys.stdin)["result"]["bindings"]
sys.exit(not (len(bindings) == 2 and all(it["phase"] == "registered" and it["usable"] for it in bindings)))'
}
until_so() { # until_so WHAT COMMAND...
    local _
    for _ in $(seq 300); do
        ! "${@:2}" 2>/dev/null || return 0
        sleep 0.1
    done
    tail -n 20 "$place"/*.log >&2
    fail "waited in vain for $1"
}
answers() { say "$1" status | grep -q '"ok":true\|"code":"degraded"'; }
start() { # start SIDE PROGRAMS
    local words
    mapfile -t words <"$place/$1.words"
    ip netns exec "$(cat "$place/$1.network")" "$2/mtund" "${words[@]}" >"$place/$1.log" 2>&1 &
    started+=($!)
    echo $! >"$place/$1.id"
    until_so "an answer of the $1" answers "$1"
}
stop() { # stop SIDE: as a kill does it
    local id
    id="$(cat "$place/$1.id")"
    # The demo's own are nobody's children here.
    { kill -KILL "$id" && wait "$id"; } 2>/dev/null || true
    until_so "its end" eval "! kill -0 $id"
}
reached() {
    ip netns exec "$(cat "$place/agent.network")" ping -q -c 2 -i 0.2 -W 2 2001:db8:100::42 >/dev/null
}

until_so "two bindings" registered
was="$(held)"
[ "$(wc -l <<<"$was")" -eq 2 ] || fail "the agent holds: $was"
[ -z "${MTUN_KEEP_STORE:-}" ] || {
    # As a fixture: what a killed agent of this build leaves.
    stop agent
    cp "$(word agent --state)/bindings.redb" "$MTUN_KEEP_STORE"
    start agent "$before"
}
for programs in "$now" "$before" "$now"; do
    stop agent
    start agent "$programs"
    is="$(held)"
    [ "$was" = "$is" ] || fail "$programs holds of what was acknowledged: $is, and not $was"
    until_so "a ping to the home address" reached
    # The router too; it registers anew, which this build of the agent writes down.
    stop router
    start router "$programs"
    until_so "two bindings" registered
    until_so "a ping to the home address" reached
    was="$(held)"
    [ "$(wc -l <<<"$was")" -eq 2 ] || fail "the agent holds: $was"
    echo "versions: $programs goes on where the other one was killed"
done
echo "versions ok"

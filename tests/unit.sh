#!/bin/bash
# What the unit allows is enough for the daemon, and no more than was decided.
#
#   tests/unit.sh PROGRAMS
#
# The exposure that systemd-analyze sees has a threshold; and every system call that a home agent and a
# mobile router make in the life of a small world, from start to stop, is one of the unit's list.
# PROGRAMS is a directory with mtund and mtun. Needs root, systemd-analyze and strace.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="$(cd "$1" && pwd)"
unit=packaging/systemd/mtund.service
# In tenths: 2.6 today, and what is taken away must not come back unseen.
threshold=27

fail() {
    echo "unit: $*" >&2
    exit 1
}
systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$unit" >/dev/null ||
    fail "systemd-analyze sees more exposure than $threshold tenths"

place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

# The set of a group, groups in it unfolded.
unfold() { # unfold NAME
    local line
    case "$1" in
    @*) systemd-analyze syscall-filter --no-pager "$1" | sed '1d; s/^ *//; /^#/d; /^$/d' |
        while read -r line; do unfold "$line"; done ;;
    *) echo "$1" ;;
    esac
}
: >"$place/allowed"
# As systemd reads them: each line adds, or takes away with a tilde.
grep '^SystemCallFilter=' "$unit" | cut -d= -f2- | while read -r line; do
    case "$line" in
    '~'*)
        for word in ${line#\~}; do unfold "$word"; done | sort -u >"$place/taken"
        sort -u "$place/allowed" | comm -23 - "$place/taken" >"$place/left"
        mv "$place/left" "$place/allowed"
        ;;
    *) for word in $line; do unfold "$word"; done >>"$place/allowed" ;;
    esac
done
sort -u -o "$place/allowed" "$place/allowed"
[ "$(wc -l <"$place/allowed")" -gt 100 ] || fail "the unit's list cannot be read"

# Those of every packet and every turn of a loop. They are in any list and would only be slowed down by
# being watched; strace leaves them alone.
hot=(read write readv writev poll ppoll epoll_wait epoll_ctl recvmsg recvfrom recvmmsg sendmsg sendto sendmmsg
    futex getrandom bpf)
printf '%s\n' "${hot[@]}" >"$place/hot"

# The small world of the demo, with every daemon of it under strace. `mtun demo` takes the mtund beside it.
mkdir "$place/bin"
cp "$programs/mtun" "$place/bin/mtun"
cat >"$place/bin/mtund" <<EOF
#!/bin/sh
exec strace --daemonize --follow-forks --seccomp-bpf --quiet=all --signal=none --output-separately \\
    --output=$place/calls --trace='!$(IFS=,; echo "${hot[*]}")' $programs/mtund "\$@"
EOF
chmod +x "$place/bin/mtund"
"$place/bin/mtun" demo --json >"$place/demo.json" 2>"$place/demo.log" || true
cat "$place"/calls.* 2>/dev/null | sed -n 's/^\([a-z_0-9]*\)(.*/\1/p' | sort -u - "$place/hot" >"$place/called"
[ "$(wc -l <"$place/called")" -gt 30 ] || { cat "$place/demo.json"; fail "nothing was traced"; }
# Everything before the daemon's own first call is strace's and the loader's: all of that is allowed too.
extra="$(comm -23 "$place/called" "$place/allowed")"
[ -z "$extra" ] || fail "the daemon calls what the unit does not allow: $(tr '\n' ' ' <<<"$extra")"
echo "unit ok: $(wc -l <"$place/called") calls of $(wc -l <"$place/allowed") allowed"

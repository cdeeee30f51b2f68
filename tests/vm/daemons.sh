#!/bin/bash
# Our daemons on the device of kmod-mtun, inside the test boot: the network of figure 10 with the
# policy of figure 11, and what may happen to the device under living daemons. Prints "ok" and
# "not ok" lines.
#
#   mnn ---- lan0 [ mr: mtun0 ] wlan0 ==== wlan0 +------+ ha0 ==== core0 [ ha: mtun0 ] home0 ---- home
#                               wwan0 ==== wwan0 | core | cn0 ---- cn
#                                                +------+
failed=0
AGENT=2001:db8:100::1 HOME=2001:db8:100::42 NODE=2001:db8:100:4200::10 CN=2001:db8:c::9

ok() { echo "ok $*"; }
bad() { echo "not ok $*"; failed=$((failed + 1)); }
check() { # check NAME COMMAND...: it must succeed
    local name="$1" output
    shift
    if output="$("$@" 2>&1)"; then ok "$name"; else bad "$name: $* -> $output"; fi
}
at() { ip netns exec "$@"; } # at NAMESPACE COMMAND...
# The clock of an emulated machine may run ten times too fast when its host has much to do: what is
# waited for is counted in tries, and limits in seconds are far away.
eventually() { # eventually COMMAND...: polls
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    return 1
}

wire() { # wire NS1 DEV1 ADDRESS1 NS2 DEV2 ADDRESS2
    ip link add "$2" netns "$1" type veth peer name "$5" netns "$4"
    at "$1" ip addr add "$3/64" dev "$2" nodad
    at "$4" ip addr add "$6/64" dev "$5" nodad
    at "$1" ip link set "$2" up
    at "$4" ip link set "$5" up
}
world() {
    local ns
    for ns in mnn mr core ha home cn; do
        ip netns add $ns
        at $ns ip link set lo up
        at $ns bash -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
            echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
            echo 1 >/proc/sys/net/ipv6/conf/default/keep_addr_on_down'
    done
    for ns in core ha; do at $ns bash -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'; done
    wire mr lan0 2001:db8:100:4200::1 mnn eth0 $NODE
    wire mr wlan0 2001:db8:1::7 core wlan0 2001:db8:1::1
    wire mr wwan0 2001:db8:2::7 core wwan0 2001:db8:2::1
    wire ha core0 2001:db8:f0::2 core ha0 2001:db8:f0::1
    wire ha home0 $AGENT home eth0 2001:db8:100::99
    wire cn eth0 $CN core cn0 2001:db8:c::1
    at mnn ip route add default via 2001:db8:100:4200::1
    at mr ip route add default via 2001:db8:1::1 dev wlan0 metric 1024
    at mr ip route add default via 2001:db8:2::1 dev wwan0 metric 2048
    at core ip route add 2001:db8:100::/48 via 2001:db8:f0::2
    at ha ip route add default via 2001:db8:f0::1
    at ha ip route add unreachable 2001:db8:100::/48 metric 4000
    at home ip route add default via $AGENT
    at cn ip route add default via 2001:db8:c::1
    for port in 22 443; do at cn iperf3 -s -D -p $port >/dev/null 2>&1; done
}
keys() {
    mkdir -p /run/mr /run/ha
    mtun key new --out /run/mr/acme.key >/dev/null && cp /run/mr/acme.key /run/ha/acme.key &&
        mtun key new --out /run/ha/laptop.key >/dev/null &&
        sed 's/^interface "w.*/&\n    usable { hold up="0s" }/' /policies/figure-11.kdl >/run/mr/policy.kdl &&
        cp /policies/home-agent.kdl /run/ha/policy.kdl
}
start() { # start NAME NAMESPACE [ARGUMENTS]: not by check(), as it is to be our own child
    local name="$1" ns="$2"
    shift 2
    ip netns exec "$ns" mtund --policy "/run/$ns/policy.kdl" --socket "/run/$ns/control" \
        --state "/run/$ns/state" "$@" >>"/run/$ns/log" 2>&1 &
    echo $! >"/run/$ns/id"
    eventually answers_or_ends "$ns"
    if ask "$ns" status >/dev/null 2>&1; then ok "$name"; else bad "$name: $(tail -n 5 "/run/$ns/log")"; fi
}
answers_or_ends() { # answers_or_ends NAMESPACE
    ask "$1" status || ! kill -0 "$(cat "/run/$1/id")"
}
ask() { # ask NAMESPACE WORDS...
    local ns="$1"
    shift
    at "$ns" mtun --socket "/run/$ns/control" --color never "$@"
}
end() { # end NAMESPACE SIGNAL
    kill "-$2" "$(cat "/run/$1/id")"
    wait "$(cat "/run/$1/id")" 2>/dev/null
}
says() { ask mr "$1" 2>&1 | grep -q "$2"; } # says COMMAND WORDS
registered() { # registered LINKS...: these, and they are usable
    local status link
    status=$(ask mr bindings 2>&1)
    for link in "$@"; do
        echo "$status" | grep "$link" | grep -q registered || return 1
    done
}
counter() { # counter NAMESPACE REASON
    at "$1" mtunctl counters mtun0 | sed -n "s/^$2 //p"
}
rose() { # rose NAME NAMESPACE REASON BEFORE BY: the counter moved by at least that
    local now
    now=$(counter "$2" "$3")
    if [ "$now" -ge $(($4 + $5)) ]; then ok "$1"; else bad "$1: $3 $4 -> $now"; fi
}
sent() { at mr cat "/sys/class/net/$1/statistics/tx_bytes" 2>/dev/null || echo 0; }
reaches() { at "$1" ping -6 -n -q -c 2 -i 0.2 -W 5 ${2:+-I $2} $CN; }
bulk() { # bulk NAMESPACE PORT [SOURCE]
    at "$1" timeout -s KILL 60 iperf3 -6 -c $CN -p "$2" -n 4M ${3:+-B $3} >/tmp/bulk 2>&1
}
# Of four mebibytes some may be on their way still when the sender has done.
takes() { # takes NAME NAMESPACE PORT LINK [SOURCE]: they go by that link and no other
    local other=wlan0 mine theirs
    [ "$4" = wwan0 ] || other=wwan0
    mine=$(sent "$4") theirs=$(sent $other)
    if ! bulk "$2" "$3" "$5"; then
        bad "$1: $(tail -n 2 /tmp/bulk)"
        return
    fi
    mine=$(($(sent "$4") - mine)) theirs=$(($(sent $other) - theirs))
    if [ $mine -gt 1000000 ] && [ $theirs -lt $((mine / 4)) ]; then ok "$1"; else
        bad "$1: $mine octets by $4, $theirs by $other"
    fi
}

modprobe mtun || bad "the module does not load"
# The corpus of packets, through the engine and the module: the same answers, octet for octet.
kmod-parity --ignored --test-threads=1 >/tmp/corpus 2>&1
while read -r line; do
    case "$line" in
    test*" ... ok") line="${line#test }" && ok "${line% ... ok}" ;;
    test*FAILED) bad "$line" ;;
    thread* | *left:* | *right:* | *panicked*) echo "note $line" ;;
    "test result: ok. 4 passed"*) corpus=whole ;;
    esac
done </tmp/corpus
[ "$corpus" = whole ] || bad "the corpus"
world
check "keys and policies" keys
start "the agent starts" ha
start "the mobile router starts" mr
# Without them all that follows is a long wait.
[ "$failed" = 0 ] || exit 1
if eventually registered wlan0 wwan0; then ok "both links are registered"; else
    bad "registered: $(ask mr bindings 2>&1) $(tail -n 5 /run/mr/log /run/ha/log)"
fi
check "the device is of kind mtun" at mr bash -c 'ip -d link show mtun0 | grep -q "^ *mtun "'
check "status says who carries" says status "kmod-mtun carries decided flows of mtun0"
check "doctor says who carries, and why" says doctor "kmod-mtun carries decided flows: this kernel has"
check "the node reaches the correspondent" eventually reaches mnn
check "the router reaches it too" eventually reaches mr $HOME

# Figure 11: interactive by W-CDMA, bulk by the WLAN, from the node (NEMO) and the router (MIPv6).
up=$(counter mr out-hit) down=$(counter mr in-hit) agent=$(counter ha in-hit)
takes "bulk of the node takes the WLAN" mnn 443 wlan0
takes "interactive of the node takes W-CDMA" mnn 22 wwan0
takes "bulk of the router takes the WLAN" mr 443 wlan0 $HOME
takes "interactive of the router takes W-CDMA" mr 22 wwan0 $HOME
rose "the kernel carried them out" mr out-hit "$up" 100
rose "and their answers in" mr in-hit "$down" 100
rose "the agent's too" ha in-hit "$agent" 100
told() { # told WORDS: the flows that the daemon knows have octets that only the kernel carried
    ask mr flows --json | tr '{' '\n' | grep -q '"bytes_out":[4-9][0-9]\{6\}'
}
check "the daemon counts what the kernel carried" eventually told

# Handovers: a link dies and comes back.
at mr ip link set wlan0 down
check "the WLAN is gone" eventually says links 'wlan0.*down'
takes "bulk takes W-CDMA" mnn 443 wwan0
at mr ip link set wlan0 up
at mr ip route replace default via 2001:db8:1::1 dev wlan0 metric 1024
if eventually registered wlan0 wwan0; then ok "the WLAN is back"; else bad "$(ask mr bindings)"; fi
takes "and the bulk with it" mnn 443 wlan0
check "by hand" ask mr steer "dport 443" via wwan0 --for 10m
takes "steered" mnn 443 wwan0
check "undone" ask mr steer undo 1
takes "by the rules again" mnn 443 wlan0

# Flapping, under traffic.
at mnn timeout -s KILL 120 iperf3 -6 -c $CN -p 22 -t 20 >/tmp/flapping 2>&1 &
traffic=$!
for _ in $(seq 10); do
    at mr ip link set wlan0 down
    at mr ip link set wlan0 up
    at mr ip route replace default via 2001:db8:1::1 dev wlan0 metric 1024
done
if wait $traffic; then
    ok "a flow of the other link goes on"
else
    bad "flapping: $(tail -n 2 /tmp/flapping)"
fi
if eventually registered wlan0 wwan0; then ok "registered after flapping"; else bad "$(ask mr bindings)"; fi
check "and it reaches" eventually reaches mnn

# A killed daemon takes its decisions along; the next one takes the device over.
index=$(at mr cat /sys/class/net/mtun0/ifindex)
end mr KILL
none=$(counter mr drop-no-daemon)
at mnn ping -6 -n -q -c 2 -i 0.2 -W 1 $CN >/dev/null 2>&1
rose "without its daemon nothing leaves" mr drop-no-daemon "$none" 1
start "the next daemon" mr
if [ "$(at mr cat /sys/class/net/mtun0/ifindex)" = "$index" ]; then ok "takes the device over"; else
    bad "another device"; fi
if eventually registered wlan0 wwan0; then ok "and registers"; else bad "$(ask mr bindings)"; fi
takes "and carries" mnn 443 wlan0
refused=$(ip netns exec mr mtund --policy /run/mr/policy.kdl --socket /run/mr/second \
    --state /run/mr/second-state --metrics none 2>&1)
case "$refused" in
*"another process serves"* | *"already"*) ok "a second daemon is refused" ;;
*) bad "a second daemon: $refused" ;;
esac
end mr TERM
if at mr ip link show mtun0 >/dev/null 2>&1; then bad "the device stays"; else ok "a stop removes it"; fi
start "without it" mr --fast-path off
check "it is a TUN" at mr bash -c 'ip -d link show mtun0 | grep -qw tun'
check "status says why" says status "the daemon carries every packet of mtun0 itself: switched off"
if eventually registered wlan0 wwan0; then ok "registered"; else bad "$(ask mr bindings)"; fi
takes "the same ways by the daemon alone" mnn 443 wlan0
end mr TERM
start "with it again" mr --fast-path kmod
eventually registered wlan0 wwan0
takes "carried again" mnn 443 wlan0

# The module goes under the daemons, with traffic.
at mnn timeout -s KILL 20 iperf3 -6 -c $CN -p 443 -t 5 >/dev/null 2>&1 &
traffic=$!
sleep 1
check "unload under living daemons" rmmod mtun
wait $traffic
check "the router's daemon lives" ask mr status
check "the agent's too" ask ha status
end mr TERM
end ha TERM
modprobe mtun
start "the agent again" ha
start "the router again" mr
eventually registered wlan0 wwan0
check "and all is well" eventually reaches mnn

# Namespaces go with live devices.
end ha KILL
check "the agent's namespace goes" ip netns del ha
end mr KILL
check "the router's too" ip netns del mr
free() { ! dmesg | grep -q 'unregister_netdevice: waiting' && rmmod mtun; }
check "nothing is held" eventually free
for ns in mnn core home cn; do ip netns del $ns; done

echo "note daemons: $failed failed, $(cut -d' ' -f1 /proc/uptime) s"
if [ "$failed" != 0 ]; then
    tail -n 30 /run/mr/log /run/ha/log | sed 's/^/note /'
    exit 1
fi

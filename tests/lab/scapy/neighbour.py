"""A neighbour on a link: asks for routers and for owners of addresses, and says what came back and
what was advertised meanwhile, one JSON object a line.

Settings: `interface`, `own` (its address there), `router` (a link-local address to ask), and
`targets`: addresses to ask for.
"""

import socket

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.utils6 import in6_getnsma

from mobility import Wire, main, octets, say, text

SILENCE = 2.0  # seconds in which an answer would have come


def run(settings):
    interface, own = settings["interface"], settings["own"]
    index = socket.if_nametoindex(interface)
    with open(f"/sys/class/net/{interface}/address") as file:
        option = ICMPv6NDOptSrcLLAddr(lladdr=file.read().strip())
    wire = Wire(interface)
    say(ready=True)

    def ask(destination, message):
        packet = IPv6(src=own, dst=destination, hlim=255) / message / option
        wire.out.sendto(bytes(packet), (destination, 0, 0, index))

    def heard(kind):
        return [packet[kind] for packet in map(IPv6, wire.within(SILENCE)) if kind in packet]

    for destination in ["ff02::2", "ff02::1", settings["router"]]:
        ask(destination, ICMPv6ND_RS())
        say(step="routers", asked=destination, heard=len(heard(ICMPv6ND_RA)))
    for target in settings["targets"]:
        ask(text(in6_getnsma(octets(target))), ICMPv6ND_NS(tgt=target))
        answers = [it for it in heard(ICMPv6ND_NA) if it.tgt == target]
        say(step="owner", target=target, answers=len(answers), router=any(it.R for it in answers))
    say(step="done")


if __name__ == "__main__":
    main(run)

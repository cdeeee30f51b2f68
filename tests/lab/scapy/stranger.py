"""Sends Mobility Headers that nobody can use, plain and with a Home Address option, and says what
came back, one JSON object a line.

Settings: `interface`, `own`, `home`, `target`.
"""

from scapy.layers.inet6 import (
    HAO,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    MIP6MH_BE,
    MIP6MH_BU,
    MIP6MH_Generic,
    MIP6MH_HoTI,
)

from mobility import MOBILITY_HEADER, Received, Wire, finished, main, say

SILENCE = 2.0  # seconds in which an answer would have come


def answer(wire, own):
    for octets in wire.within(SILENCE):
        packet = IPv6(octets)
        if packet.dst != own:
            continue
        if ICMPv6ParamProblem in packet:
            problem = packet[ICMPv6ParamProblem]
            return {"answer": "problem", "code": problem.code, "pointer": problem.ptr}
        received = Received(octets)
        if received.is_a(MIP6MH_BE) and received.sound():
            error = received.header
            return {"answer": "error", "status": error.status, "home": error.ha}
    return {"answer": None}


def run(settings):
    wire = Wire(settings["interface"])
    own, home, target = settings["own"], settings["home"], settings["target"]
    say(ready=True)
    messages = [
        ("payload proto", MIP6MH_HoTI(nh=17, cookie=bytes(8)), True),
        ("header length", MIP6MH_BU(len=0, seq=1, mhtime=10, autopad=0), True),
        ("unknown type", MIP6MH_Generic(mhtype=200, msg=bytes(2)), True),
        ("checksum", MIP6MH_HoTI(nh=17, cookie=bytes(8)), False),
    ]
    for name, message, sealed in messages:
        plain = IPv6(src=own, dst=target, nh=MOBILITY_HEADER)
        option = IPv6ExtHdrDestOpt(nh=MOBILITY_HEADER, options=[HAO(hoa=home)])
        for kind, head, source in [
            ("plain", plain, own),
            ("with option", IPv6(src=own, dst=target) / option, home),
        ]:
            packet = bytearray(finished(head, message.copy(), source, target))
            if not sealed:
                packet[-1] ^= 1
            wire.send(bytes(packet))
            say(step=f"{name}, {kind}", **answer(wire, own))
    say(step="done")


if __name__ == "__main__":
    main(run)

"""A scripted mobile node without a home agent: it holds its home address itself, and registers with
a correspondent as RFC 6275 §5.2 says. Says what came of each step, one JSON object a line.

Settings: `interface`, `home`, `care_of`, `correspondent`.
"""

import os

from scapy.layers.inet6 import (
    HAO,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrRouting,
    MIP6MH_BA,
    MIP6MH_BE,
    MIP6MH_BU,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptBindingAuthData,
    MIP6OptNonceIndices,
)

from mobility import (
    MOBILITY_HEADER,
    Received,
    Wire,
    authenticator,
    binding_management_key,
    finished,
    main,
    say,
)

SILENCE = 2.0  # seconds in which an answer would have come


class Mobile:
    def __init__(self, settings):
        self.settings = settings
        self.wire = Wire(settings["interface"])
        self.home, self.care_of = settings["home"], settings["care_of"]
        self.correspondent = settings["correspondent"]
        self.sequence, self.echoes = 100, 0

    def plain(self, source, header):
        head = IPv6(src=source, dst=self.correspondent, nh=MOBILITY_HEADER)
        self.wire.send(finished(head, header, source, self.correspondent))

    def away(self, care_of, next_header):
        option = IPv6ExtHdrDestOpt(nh=next_header, options=[HAO(hoa=self.home)])
        return IPv6(src=care_of, dst=self.correspondent) / option

    def hear(self, kind):
        """The next Mobility Header of a kind to either address; nothing after a while."""
        for packet in self.wire.within(SILENCE):
            received = Received(packet)
            if received.is_a(kind) and received.sound():
                return received
        return None

    def test(self):
        """Both tests; the tokens with the indices of their nonces."""
        cookies = os.urandom(8), os.urandom(8)
        self.plain(self.home, MIP6MH_HoTI(cookie=cookies[0]))
        home = self.hear(MIP6MH_HoT)
        self.plain(self.care_of, MIP6MH_CoTI(cookie=cookies[1]))
        care_of = self.hear(MIP6MH_CoT)
        say(
            step="tests",
            home=home is not None and home.ip.dst == self.home and home.home is None,
            care_of=care_of is not None and care_of.ip.dst == self.care_of,
            cookies=[home.header.cookie, care_of.header.cookie] == list(cookies),
        )
        return home.header, care_of.header

    def update(self, kbm, home_index, care_of_index, lifetime, spoil=False):
        """A Binding Update and what came back: status, or nothing."""
        self.sequence += 1
        bu = MIP6MH_BU(
            seq=self.sequence,
            flags="A",
            mhtime=lifetime,
            options=[
                MIP6OptNonceIndices(olen=4, hni=home_index, coni=care_of_index),
                MIP6OptBindingAuthData(olen=12, authenticator=0),
            ],
            autopad=0,
        )
        # The address of a de-registration is the home address, wherever it comes from.
        bound = self.care_of if lifetime else self.home

        def sign(message):
            data = authenticator(kbm, bound, self.correspondent, message)
            message[-12:] = bytes(12) if spoil else data

        head = self.away(self.care_of, MOBILITY_HEADER)
        self.wire.send(finished(head, bu, self.home, self.correspondent, sign))
        ba = self.hear(MIP6MH_BA)
        if ba is None:
            return {"answered": False}
        options = ba.options(MIP6OptBindingAuthData)
        good = None
        if options:
            good = authenticator(kbm, bound, self.correspondent, ba.octets) == ba.octets[-12:]
        return {
            "answered": True,
            "status": ba.header.status,
            "sequence": ba.header.seq == self.sequence,
            "lifetime": ba.header.mhtime,
            "routed": ba.routed,
            "authentic": good,
        }

    def echo(self, care_of):
        """An echo request with the Home Address option, and how it was answered."""
        self.echoes += 1
        packet = self.away(care_of, 58) / ICMPv6EchoRequest(id=7, seq=self.echoes)
        self.wire.send(bytes(packet))
        for octets in self.wire.within(SILENCE):
            packet = IPv6(octets)
            if ICMPv6EchoReply in packet and packet[ICMPv6EchoReply].seq == self.echoes:
                routing = packet.getlayer(IPv6ExtHdrRouting)
                return {
                    "answer": "reply",
                    "to": packet.dst,
                    "routed": routing and routing.addresses[0],
                }
            received = Received(octets)
            if received.is_a(MIP6MH_BE) and received.sound():
                error = received.header
                return {"answer": "error", "to": packet.dst, "status": error.status, "home": error.ha}
        return {"answer": None}


def run(settings):
    mobile = Mobile(settings)
    say(ready=True)
    say(step="unbound data", **mobile.echo(mobile.care_of))
    home, care_of = mobile.test()
    kbm = binding_management_key(home.token, care_of.token)
    both = home.index, care_of.index
    say(step="spoiled", **mobile.update(kbm, *both, 100, spoil=True))
    for name, indices in [
        ("home nonce", (both[0] + 1000 & 0xFFFF, both[1])),
        ("care-of nonce", (both[0], both[1] + 1000 & 0xFFFF)),
        ("both nonces", (both[0] + 1000 & 0xFFFF, both[1] + 1000 & 0xFFFF)),
    ]:
        say(step=name, **mobile.update(kbm, *indices, 100))
    say(step="still unbound", **mobile.echo(mobile.care_of))
    say(step="bound", **mobile.update(kbm, *both, 100))
    say(step="data", **mobile.echo(mobile.care_of))
    say(step="data of a stranger", **mobile.echo(settings["stranger"]))
    mobile.sequence -= 1
    say(step="old sequence", **mobile.update(kbm, *both, 100))
    ending = binding_management_key(home.token)
    say(step="ended", **mobile.update(ending, both[0], 0, 0))
    say(step="data afterwards", **mobile.echo(mobile.care_of))
    say(step="done")


if __name__ == "__main__":
    main(run)

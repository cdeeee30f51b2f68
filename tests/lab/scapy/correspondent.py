"""A scripted correspondent: answers the tests of RFC 6275 §5.2 with tokens of its own, checks every
Binding Update by the arithmetic of the RFC, answers it as its script says, and echoes UDP: straight
to who is bound, with a type 2 routing header, else plain. Says what it heard, one JSON object a
line.

Settings: `interface`, `address`, `port`, and `answers`: statuses of the acknowledgements, the last
one for ever.
"""

import os
import struct

from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrRouting,
    MIP6MH_BA,
    MIP6MH_BU,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptBindingAuthData,
    MIP6OptNonceIndices,
    MIP6OptUnknown,
)

from mobility import (
    MOBILITY_HEADER,
    Received,
    Wire,
    authenticator,
    binding_management_key,
    finished,
    keygen_token,
    main,
    octets,
    pad,
    say,
)

FIXED = 12  # octets of a Binding Acknowledgement in front of its options


class Correspondent:
    def __init__(self, settings):
        self.settings = settings
        self.address = settings["address"]
        self.wire = Wire(settings["interface"])
        self.kcn, self.nonce, self.index = os.urandom(20), os.urandom(8), 7
        self.answers = list(settings["answers"])
        self.bound = {}  # care-of addresses by home address

    def plain(self, destination, header):
        head = IPv6(src=self.address, dst=destination, nh=MOBILITY_HEADER)
        self.wire.send(finished(head, header, self.address, destination))

    def tested(self, received, name, kind, answer):
        token = keygen_token(self.kcn, received.ip.src, self.nonce, kind)
        sound = received.sound() and received.home is None
        say(heard=name, source=received.ip.src, sound=sound)
        cookie = received.header.cookie
        self.plain(received.ip.src, answer(index=self.index, cookie=cookie, token=token))

    def updated(self, update):
        bu, home = update.header, update.source
        bids = update.bids()
        care_of = next((bid["coa"] for bid in bids if bid["coa"]), update.ip.src)
        ends = bu.mhtime == 0
        tokens = [keygen_token(self.kcn, home, self.nonce, 0)]
        if not ends:
            tokens.append(keygen_token(self.kcn, care_of, self.nonce, 1))
        kbm = binding_management_key(*tokens)
        signed = home if ends else care_of
        nonces = update.options(MIP6OptNonceIndices)
        data = update.options(MIP6OptBindingAuthData)
        authentic = bool(data) and update.octets[-12:] == authenticator(
            kbm, signed, self.address, update.octets
        )
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        say(
            heard="BU",
            seq=bu.seq,
            flags=str(bu.flags),
            lifetime=bu.mhtime,
            source=update.ip.src,
            home=update.home,
            bids=bids,
            nonces=[[it.hni, it.coni] for it in nonces],
            sound=update.sound(),
            authentic=authentic,
            status=status,
        )
        if not authentic:
            return
        if status < 128:
            held = self.bound.setdefault(home, {})
            for bid in [bid["bid"] for bid in bids] or [None]:
                held.pop(bid, None) if ends else held.update({bid: care_of})
        options, length = [], FIXED
        for bid in bids:
            options += pad(length, 2, 0)
            value = struct.pack("!HBB", bid["bid"], 0, bid["pri"])
            options.append(MIP6OptUnknown(otype=35, odata=value))
            length += length % 2 + 6
        options += pad(length, 8, 2)
        options.append(MIP6OptBindingAuthData(olen=12, authenticator=0))
        ba = MIP6MH_BA(
            status=status, flags=0, seq=bu.seq, mhtime=bu.mhtime, options=options, autopad=0
        )

        def sign(message):
            message[-12:] = authenticator(kbm, signed, self.address, message)

        routing = IPv6ExtHdrRouting(nh=MOBILITY_HEADER, type=2, addresses=[home], segleft=1)
        head = IPv6(src=self.address, dst=update.ip.src) / routing
        self.wire.send(finished(head, ba, self.address, home, sign))

    def datagram(self, received, udp):
        """Said, checked as upper layers see it, and echoed the way it came."""
        straight = received.home is not None
        held = self.bound.get(received.source, {})
        known = not straight or received.ip.src in held.values()
        say(heard="UDP", straight=straight, known=known, source=received.ip.src, home=received.home)
        if not known:
            return
        echo = UDP(sport=udp.dport, dport=udp.sport) / bytes(udp.payload)
        # The checksum is over the home address, where a routing header leads.
        sealed = IPv6(bytes(IPv6(src=self.address, dst=received.source) / echo))[UDP]
        head = IPv6(src=self.address, dst=received.ip.src)
        if straight:
            head /= IPv6ExtHdrRouting(nh=17, type=2, addresses=[received.source], segleft=1)
        self.wire.send(bytes(head / sealed))

    def take(self, packet):
        if packet[24:40] != octets(self.address):
            return
        received = Received(packet)
        if received.is_a(MIP6MH_HoTI):
            self.tested(received, "HoTI", 0, MIP6MH_HoT)
        elif received.is_a(MIP6MH_CoTI):
            self.tested(received, "CoTI", 1, MIP6MH_CoT)
        elif received.is_a(MIP6MH_BU):
            self.updated(received)
        elif UDP in received.ip and received.ip[UDP].dport == self.settings["port"]:
            self.datagram(received, received.ip[UDP])


def run(settings):
    correspondent = Correspondent(settings)
    say(ready=True)
    for packet in correspondent.wire:
        correspondent.take(packet)


if __name__ == "__main__":
    main(run)

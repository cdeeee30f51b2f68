"""A scripted home agent: answers the n-th Binding Update with the n-th answer of its script, the
last one for ever, and says what it received, one JSON object a line.

Settings: `interface`, `address`, `key` (hexadecimal) with `spi` and `algorithm`, or none of them,
and `answers`: objects with `status`, `lifetime` in units of four seconds, `router` (whether the R
flag is set, default as in the update), `bids` (whether Binding Identifiers are answered, default
true) and `silent`.
"""

import struct

from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrRouting,
    MIP6MH_BA,
    MIP6MH_BU,
    MIP6OptMobNetPrefix,
    MIP6OptMsgAuth,
    MIP6OptReplayProtection,
    MIP6OptUnknown,
)

from mobility import MOBILITY_HEADER, Received, Wire, authentication, finished, main, octets, pad, say

FIXED = 12  # octets of a Binding Acknowledgement in front of its options


def acknowledgement(settings, update, answer):
    bu, care_of = update.header, update.ip.src
    signed_for = bound_address(update)
    options, length = [], FIXED

    def add(option, size, modulus, rest):
        nonlocal length
        options.extend(pad(length, modulus, rest))
        length += (rest - length) % modulus + size
        options.append(option)

    if answer.get("bids", True):
        for bid in update.bids():
            data = struct.pack("!HBB", bid["bid"], 0, bid["pri"])
            add(MIP6OptUnknown(otype=35, odata=data), 6, 2, 0)
    for replay in update.options(MIP6OptReplayProtection):
        add(MIP6OptReplayProtection(timestamp=replay.timestamp), 10, 8, 2)
    sign = None
    if settings.get("key"):
        size = {"sha1": 12, "sha256": 16}[settings["algorithm"]]
        # What is signed goes to the end of the message, which is a multiple of eight.
        begin = -(7 + size) % 8
        blank = MIP6OptMsgAuth(subtype=1, mspi=settings["spi"], authdata=b"\0" * size)
        add(blank, 7 + size, 8, begin)

        def sign(message):
            key = bytes.fromhex(settings["key"])
            data = authentication(settings["algorithm"], key, signed_for, update.source, message)
            message[-size:] = data

    else:
        options.extend(pad(length, 8, 0))
    router = answer.get("router", "R" in bu.flags)
    ba = MIP6MH_BA(
        status=answer["status"],
        flags="R" if router else "",
        seq=bu.seq,
        mhtime=answer.get("lifetime", bu.mhtime),
        options=options,
        autopad=0,
    )
    routing = IPv6ExtHdrRouting(nh=MOBILITY_HEADER, type=2, addresses=[update.source], segleft=1)
    head = IPv6(src=settings["address"], dst=care_of) / routing
    return finished(head, ba, settings["address"], update.source, sign)


def bound_address(update):
    """The care-of address that is signed: of a lone Binding Identifier its own, else the source."""
    bids = update.bids()
    lone = bids[0]["coa"] if len(bids) == 1 else None
    return lone or update.ip.src


def authentic(settings, update):
    if not settings.get("key"):
        return True
    data = update.options(MIP6OptMsgAuth)[-1].authdata
    key, care_of = bytes.fromhex(settings["key"]), bound_address(update)
    return authentication(settings["algorithm"], key, care_of, update.source, update.octets) == data


def run(settings):
    wire = Wire(settings["interface"])
    say(ready=True)
    answers = list(settings["answers"])
    for packet in wire:
        if packet[24:40] != octets(settings["address"]):
            continue
        update = Received(packet)
        if not update.is_a(MIP6MH_BU):
            continue
        bu = update.header
        say(
            seq=bu.seq,
            flags=str(bu.flags),
            lifetime=bu.mhtime,
            source=update.ip.src,
            home=update.home,
            prefixes=[f"{it.prefix}/{it.plen}" for it in update.options(MIP6OptMobNetPrefix)],
            bids=update.bids(),
            kinds=[option.otype for option in bu.options],
            checksum=update.sound(),
            authentic=authentic(settings, update),
        )
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer.get("silent"):
            wire.send(acknowledgement(settings, update, answer))


if __name__ == "__main__":
    main(run)

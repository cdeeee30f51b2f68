"""Reads the capture named first with scapy and prints what it finds, one `frame<TAB>key<TAB>value` per line.

Addresses and numbers as scapy shows them, octet strings in hexadecimal. Two keys are computed here,
both `good` or `bad`: `checksum`, over the home address where a Home Address option or a type 2
routing header says so, and `authentication`, over what RFC 4285 §5.1 says.
"""

import hmac
import socket
import sys

from scapy.layers import inet6
from scapy.utils import RawPcapReader

# The associations of the samples by SPI: hash, key, octets of authentication data.
ASSOCIATIONS = {
    256: ("sha1", bytes.fromhex("00112233445566778899aabbccddeeff"), 12),
    0x1001: ("sha256", bytes(range(32)), 16),
}


def authenticated(option, message, care_of, home):
    algorithm, key, length = ASSOCIATIONS[option.mspi]
    if len(option.authdata) != length or not message.endswith(option.authdata):
        return False
    covered = message[:4] + b"\0\0" + message[6:-length]
    addresses = [socket.inet_pton(socket.AF_INET6, text) for text in (care_of, home)]
    want = hmac.new(key, b"".join(addresses) + covered, algorithm).digest()[:length]
    return hmac.compare_digest(want, option.authdata)


def value(found):
    if isinstance(found, bytes):
        return found.hex()
    if isinstance(found, (int, float)):
        return str(int(found)) if found < 1 << 64 else hex(int(found))
    return str(found)


def fields(layer, skip=("options", "autopad")):
    for description in layer.fields_desc:
        if description.name not in skip and layer.getfieldval(description.name) is not None:
            yield description.name, value(layer.getfieldval(description.name))


for number, (octets, _) in enumerate(RawPcapReader(sys.argv[1]), 1):
    packet = inet6.IPv6(octets)
    source, destination = packet.src, packet.dst
    layer = packet
    while layer and not isinstance(layer, inet6._MobilityHeader):
        if isinstance(layer, inet6.IPv6ExtHdrDestOpt):
            for option in layer.options:
                if isinstance(option, inet6.HAO):
                    source = option.hoa
        if isinstance(layer, inet6.IPv6ExtHdrRouting) and layer.type == 2 and layer.segleft == 1:
            destination = layer.addresses[0]
        layer = layer.payload
    if not isinstance(layer, inet6._MobilityHeader):
        print(number, "class", type(packet.lastlayer()).__name__, sep="\t")
        continue
    message = octets[len(octets) - 8 * (layer.len + 1) :]
    rest = inet6.in6_chksum(135, inet6.IPv6(src=source, dst=destination), message)
    print(number, "class", type(layer).__name__, sep="\t")
    print(number, "checksum", "good" if rest in (0, 0xFFFF) else "bad", sep="\t")
    print(number, "upper", f"{source} > {destination}", sep="\t")
    for name, found in fields(layer):
        print(number, name, found, sep="\t")
    for option in getattr(layer, "options", []):
        if isinstance(option, (inet6.Pad1, inet6.PadN)):
            continue
        name = type(option).__name__
        print(number, "option", name, sep="\t")
        for key, found in fields(option, skip=("olen",)):
            print(number, f"{name}.{key}", found, sep="\t")
        if isinstance(option, inet6.MIP6OptMsgAuth):
            # In every sample the care-of address is the mobile's address in the IPv6 header.
            update = isinstance(layer, inet6.MIP6MH_BU)
            pair = (packet.src, source) if update else (packet.dst, destination)
            good = authenticated(option, message, *pair)
            print(number, "authentication", "good" if good else "bad", sep="\t")

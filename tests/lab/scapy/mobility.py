"""What the scripted peers share: packets in and out, and the arithmetic of RFC 4285 and RFC 6275.

Every message is built and read with scapy's layers; what scapy does not know (the Binding
Identifier option of RFC 5648) is octets. Keys and authenticators are computed here, from the
texts of the RFCs, so that nothing of the programs under test is needed to talk to them.
"""

import hashlib
import hmac
import json
import socket
import struct
import sys
import time

from scapy.layers import inet6
from scapy.packet import Raw

ETH_P_IPV6 = 0x86DD
MOBILITY_HEADER = 135


def octets(address):
    return socket.inet_pton(socket.AF_INET6, address)


def text(address):
    return socket.inet_ntop(socket.AF_INET6, address)


def say(**what):
    """One line for the test to read."""
    print(json.dumps(what), flush=True)


class Wire:
    """Every IPv6 packet that arrives on an interface, and a way to send whole packets."""

    def __init__(self, interface):
        self.arrivals = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IPV6))
        self.arrivals.bind((interface, ETH_P_IPV6))
        self.out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def __iter__(self):
        while True:
            packet, (_, _, kind, _, _) = self.arrivals.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING:
                yield packet

    def within(self, seconds):
        """What arrives until so long nothing of interest has come."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.arrivals.settimeout(left)
            try:
                packet, (_, _, kind, _, _) = self.arrivals.recvfrom(65536)
            except TimeoutError:
                return
            if kind != socket.PACKET_OUTGOING:
                yield packet

    def send(self, packet):
        self.out.sendto(packet, (text(packet[24:40]), 0))


class Received:
    """A Mobility Header with the addresses that count: those of the Home Address option and the
    type 2 routing header stand for those of the header."""

    def __init__(self, packet):
        self.ip = inet6.IPv6(packet)
        self.home = None
        self.routed = None
        layer = self.ip
        while layer and not isinstance(layer, inet6._MobilityHeader):
            for option in getattr(layer, "options", []):
                if isinstance(option, inet6.HAO):
                    self.home = option.hoa
            if isinstance(layer, inet6.IPv6ExtHdrRouting) and layer.type == 2:
                self.routed = layer.addresses[0]
            layer = layer.payload
        self.header = layer if isinstance(layer, inet6._MobilityHeader) else None
        if self.header is not None:
            self.octets = packet[len(packet) - 8 * (self.header.len + 1) :]

    @property
    def source(self):
        return self.home or self.ip.src

    @property
    def destination(self):
        return self.routed or self.ip.dst

    def is_a(self, kind):
        """Whether it is of this class of scapy's, and not of one derived from it."""
        return type(self.header) is kind

    def sound(self):
        """Whether the checksum is right."""
        return checksum(self.source, self.destination, self.octets) in (0, 0xFFFF)

    def options(self, kind):
        return [option for option in self.header.options if isinstance(option, kind)]

    def bids(self):
        """Number, status and address of each Binding Identifier option (RFC 5648 §4.1)."""
        found = []
        for option in self.options(inet6.MIP6OptUnknown):
            if option.otype == 35:
                bid, status, priority = struct.unpack("!HBB", option.odata[:4])
                address = text(option.odata[4:20]) if len(option.odata) == 20 else None
                found.append({"bid": bid, "status": status, "pri": priority & 127, "coa": address})
        return found


def checksum(source, destination, message):
    return inet6.in6_chksum(MOBILITY_HEADER, inet6.IPv6(src=source, dst=destination), message)


def pad(length, modulus, rest):
    """Options of padding so that the next one begins at `rest` modulo `modulus`."""
    missing = (rest - length) % modulus
    if missing == 0:
        return []
    return [inet6.Pad1()] if missing == 1 else [inet6.PadN(optdata=b"\0" * (missing - 2))]


def finished(head, header, source, destination, sign=None):
    """The octets of the packet with the headers `head`, the last of which announces a Mobility
    Header: `sign` fills the end of the message while its checksum is zero, then comes the
    checksum, over `source` and `destination`."""
    header.cksum = 0
    message = bytearray(bytes(header))
    if sign:
        sign(message)
    message[4:6] = struct.pack("!H", checksum(source, destination, bytes(message)))
    return bytes(head / Raw(bytes(message)))


def authentication(algorithm, key, care_of, home, message):
    """Authentication data between mobile and home agent, of a message that ends in it
    (RFC 4285 §5.1)."""
    length = {"sha1": 12, "sha256": 16}[algorithm]
    covered = bytes(message[:4]) + b"\0\0" + bytes(message[6:-length])
    return hmac.new(key, octets(care_of) + octets(home) + covered, algorithm).digest()[:length]


def keygen_token(kcn, address, nonce, kind):
    """RFC 6275 §5.2.5: `kind` is 0 for the home token and 1 for the care-of token."""
    return hmac.new(kcn, octets(address) + nonce + bytes([kind]), "sha1").digest()[:8]


def binding_management_key(home_token, care_of_token=b""):
    """RFC 6275 §5.2.5; of the home token alone for a de-registration."""
    return hashlib.sha1(home_token + care_of_token).digest()


def authenticator(kbm, care_of, correspondent, message):
    """Binding authorization data of a message that ends in it (RFC 6275 §6.2.7)."""
    covered = bytes(message[:4]) + b"\0\0" + bytes(message[6:-12])
    return hmac.new(kbm, octets(care_of) + octets(correspondent) + covered, "sha1").digest()[:12]


def main(run):
    """Runs a peer with the settings on its command line, a JSON object."""
    try:
        run(json.loads(sys.argv[1]))
    except KeyboardInterrupt:
        pass

"""Writes every IPv6 packet that passes an interface, either way, into a capture file.

Settings: `interface`, `file`.
"""

import socket
import struct

from mobility import ETH_P_IPV6, main, say

ETH_P_ALL = 3
RAW_IPV6 = 229


def run(settings):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    wire.bind((settings["interface"], ETH_P_ALL))
    with open(settings["file"], "wb", buffering=0) as file:
        file.write(struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, RAW_IPV6))
        say(ready=True)
        while True:
            packet, (_, protocol, _, _, _) = wire.recvfrom(262144)
            if protocol == ETH_P_IPV6:
                file.write(struct.pack("!IIII", 0, 0, len(packet), len(packet)) + packet)


if __name__ == "__main__":
    main(run)

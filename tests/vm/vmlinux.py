#!/usr/bin/env python3
"""Takes the ELF kernel out of a bzImage: booting it directly saves the decompressor's time.

usage: vmlinux.py BZIMAGE OUT
"""
import struct
import subprocess
import sys

with open(sys.argv[1], "rb") as file:
    image = file.read()
sectors = image[0x1F1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (sectors + 1) * 512 + offset
payload = image[start:start + length]
for magic, command in ((b"\xfd7zXZ", ["xz", "-dc"]), (b"\x28\xb5\x2f\xfd", ["zstd", "-dc"])):
    if payload.startswith(magic):
        # The payload ends in four octets of its unpacked size, which the tools complain about.
        result = subprocess.run(command, input=payload[:-4], stdout=subprocess.PIPE, check=False)
        break
else:
    sys.exit("unknown compression " + payload[:6].hex())
if not result.stdout.startswith(b"\x7fELF"):
    sys.exit("no ELF inside")
with open(sys.argv[2], "wb") as file:
    file.write(result.stdout)

"""Writes one message of each kind with scapy and prints `name<TAB>packet in hexadecimal` lines."""

from scapy.layers.inet6 import (
    HAO,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrRouting,
    MIP6MH_BA,
    MIP6MH_BE,
    MIP6MH_BRR,
    MIP6MH_BU,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptAltCoA,
    MIP6OptBindingAuthData,
    MIP6OptBRAdvice,
    MIP6OptMNID,
    MIP6OptMobNetPrefix,
    MIP6OptMsgAuth,
    MIP6OptNonceIndices,
    MIP6OptReplayProtection,
    MIP6OptUnknown,
)

HOME, CARE_OF = "2001:db8:1::1", "2001:db8:2::2"
AGENT, CORRESPONDENT = "2001:db8:1::ff", "2001:db8:9::9"


def away(destination):
    return IPv6(src=CARE_OF, dst=destination) / IPv6ExtHdrDestOpt(options=[HAO(hoa=HOME)])


def to_mobile(source):
    return IPv6(src=source, dst=CARE_OF) / IPv6ExtHdrRouting(type=2, addresses=[HOME], segleft=1)


PACKETS = {
    "refresh request": IPv6(src=AGENT, dst=HOME) / MIP6MH_BRR(),
    "home test init": IPv6(src=HOME, dst=CORRESPONDENT) / MIP6MH_HoTI(cookie=b"\xa1" * 8),
    "care-of test init": IPv6(src=CARE_OF, dst=CORRESPONDENT) / MIP6MH_CoTI(cookie=b"\xb1" * 8),
    "home test": IPv6(src=CORRESPONDENT, dst=HOME)
    / MIP6MH_HoT(index=7, cookie=b"\xa1" * 8, token=b"\xc1" * 8),
    "care-of test": IPv6(src=CORRESPONDENT, dst=CARE_OF)
    / MIP6MH_CoT(index=9, cookie=b"\xb1" * 8, token=b"\xd1" * 8),
    "registration of a router": away(AGENT)
    / MIP6MH_BU(
        seq=0x1234,
        flags="AHR",
        mhtime=105,
        options=[
            MIP6OptAltCoA(acoa=CARE_OF),
            MIP6OptMobNetPrefix(plen=56, prefix="2001:db8:100:4200::"),
            MIP6OptMNID(subtype=1, id="bus-7@example.com"),
            MIP6OptReplayProtection(timestamp=0),
            MIP6OptMsgAuth(subtype=1, mspi=0x1001, authdata=b"\xee" * 12),
        ],
    ),
    "registration of two care-of addresses": away(AGENT)
    / MIP6MH_BU(
        seq=1,
        flags="AH",
        mhtime=105,
        options=[
            MIP6OptUnknown(otype=35, odata=bytes.fromhex("0001000a20010db8000200000000000000000002")),
            MIP6OptUnknown(otype=35, odata=bytes.fromhex("0002001420010db8000300000000000000000003")),
        ],
    ),
    "binding at a correspondent": away(CORRESPONDENT)
    / MIP6MH_BU(
        seq=2,
        flags="A",
        mhtime=105,
        options=[
            # By itself scapy gives both a length of 16, which RFC 6275 §6.2.6 and §6.2.7 do not.
            MIP6OptNonceIndices(olen=4, hni=7, coni=9),
            MIP6OptBindingAuthData(olen=12, authenticator=0x0102030405060708090A0B0C),
        ],
    ),
    "de-registration from home": IPv6(src=HOME, dst=AGENT) / MIP6MH_BU(seq=3, flags="AH", mhtime=0),
    "acknowledgement": to_mobile(AGENT)
    / MIP6MH_BA(
        status=4,
        flags="R",
        seq=1,
        mhtime=100,
        options=[
            MIP6OptBRAdvice(rinter=80),
            MIP6OptUnknown(otype=35, odata=bytes.fromhex("00028114")),
        ],
    ),
    "binding error": IPv6(src=CORRESPONDENT, dst=CARE_OF) / MIP6MH_BE(status=2, ha=HOME),
}

for name, packet in PACKETS.items():
    print(name, bytes(packet).hex(), sep="\t")

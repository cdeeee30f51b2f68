/* SPDX-License-Identifier: GPL-2.0-only */
/* What key.c and header.c need of their surroundings: the kernel's words, in user space too. */
#ifndef MTUN_PURE_H
#define MTUN_PURE_H

#ifdef __KERNEL__
#include <linux/types.h>
#include <linux/string.h>
#include <linux/build_bug.h>
#include <asm/byteorder.h>
#else
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <linux/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define cpu_to_be16(x) ((__be16)htons(x))
#define cpu_to_be32(x) ((__be32)htonl(x))
#endif

/* Protocol numbers (IANA), the ones that are told apart here. */
enum {
	MTUN_PROTO_HOP_BY_HOP = 0,
	MTUN_PROTO_TCP = 6,
	MTUN_PROTO_UDP = 17,
	MTUN_PROTO_DCCP = 33,
	MTUN_PROTO_IPV6 = 41,
	MTUN_PROTO_ROUTING = 43,
	MTUN_PROTO_FRAGMENT = 44,
	MTUN_PROTO_ESP = 50,
	MTUN_PROTO_AH = 51,
	MTUN_PROTO_ICMPV6 = 58,
	MTUN_PROTO_NONE = 59,
	MTUN_PROTO_DESTINATION_OPTIONS = 60,
	MTUN_PROTO_SCTP = 132,
	MTUN_PROTO_MOBILITY = 135,
	MTUN_PROTO_UDP_LITE = 136,
};

/* Destination options. */
enum {
	MTUN_OPTION_PAD1 = 0,
	MTUN_OPTION_PADN = 1,
	MTUN_OPTION_TUNNEL_LIMIT = 4,
	MTUN_OPTION_HOME_ADDRESS = 0xc9,
};

#define MTUN_IPV6_HEADER 40

#endif

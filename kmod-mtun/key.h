/* SPDX-License-Identifier: GPL-2.0-only */
/* From the octets of an inner packet to its key. Pure: also builds in user space. */
#ifndef MTUN_KEY_H
#define MTUN_KEY_H

#include "pure.h"
#include "uapi/mtun.h"

/* How far the header chain is followed. More than this is nobody's honest packet. */
#define MTUN_CHAIN_HEADERS 8
#define MTUN_CHAIN_OCTETS 512

/* An inner packet, read once. */
struct mtun_inner {
	struct mtun_key key;	/* ingress and uid are the caller's to fill */
	u32 upper_at;		/* offset of the upper layer */
	u32 pull;		/* with MTUN_PARSE_PULL: octets wanted in one piece */
	u8 traffic_class;
	u8 hop_limit;
	u8 first;		/* next header of the IPv6 header itself */
	bool tunnelled;		/* it is a tunnel packet itself */
	bool limited;		/* it carries a Tunnel Encapsulation Limit */
	u8 limit;
};

enum mtun_parse {
	MTUN_PARSE_OK,
	MTUN_PARSE_PULL,	/* more octets are needed in one piece: see pull */
	MTUN_PARSE_VERSION,
	MTUN_PARSE_LENGTH,
	MTUN_PARSE_FRAGMENT,
	MTUN_PARSE_HEADERS,
};

/* Reads a packet of which the first `linear` of `total` octets are at hand. */
enum mtun_parse mtun_key_parse(const u8 *packet, u32 linear, u32 total,
			       struct mtun_inner *inner);

/* The fields that count. */
void mtun_key_mask(struct mtun_key *out, const struct mtun_key *key, const struct mtun_key *mask);

bool mtun_key_equal(const struct mtun_key *a, const struct mtun_key *b);

#endif

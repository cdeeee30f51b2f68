/* SPDX-License-Identifier: GPL-2.0-only */
/* The octets that a path puts around a packet. Pure: also builds in user space. */
#ifndef MTUN_HEADER_H
#define MTUN_HEADER_H

#include "key.h"

/* Further encapsulations allowed to a tunnel packet that names no limit (RFC 2473 6.6). */
#define MTUN_TUNNEL_LIMIT 4

#define MTUN_HEADER_LIMIT 8	/* Destination Options with a Tunnel Encapsulation Limit */
#define MTUN_HEADER_HOME 24	/* Destination Options with a Home Address option */
#define MTUN_HEADER_ROUTING 24	/* type 2 routing header */
#define MTUN_HEADER_MAX (MTUN_IPV6_HEADER + MTUN_HEADER_HOME + MTUN_HEADER_ROUTING)

/* The outer header of a tunnel packet. */
struct mtun_outer {
	const u8 *local;
	const u8 *remote;
	u32 flow_label;
	u8 hop_limit;
};

/* What the outside of a received, route-optimized packet says. */
struct mtun_optimized {
	u8 source[16];		/* the home address, if there is a Home Address option */
	u8 destination[16];	/* that of the type 2 routing header, if there is one */
	u8 encapsulation;	/* MTUN_ENCAPSULATION_*: which of the two there are */
	u8 next;		/* what follows them */
	u32 length;		/* octets from the start of the packet to what follows */
};

/* Octets that wrapping adds; -1 if the packet forbids it (`*limit` 0) or does not fit. */
int mtun_header_overhead(u8 encapsulation, const struct mtun_inner *inner);

/* Writes outer header and, for a tunnel in a tunnel, the limit: mtun_header_overhead() octets. */
void mtun_header_tunnel(u8 *out, const struct mtun_outer *outer, const struct mtun_inner *inner,
			u32 inner_length);

/*
 * Puts the optimized headers into a packet whose IPv6 header stands `overhead` octets behind
 * `packet`: moves it to the front, fills the gap, rewrites addresses and length.
 */
void mtun_header_optimize(u8 *packet, u8 encapsulation, const u8 *local, const u8 *remote);

/* Reads those headers; false if there are none, or in another layout than RFC 6275's. */
bool mtun_header_optimized(const u8 *packet, u32 linear, struct mtun_optimized *found);

/* Takes them out again: the IPv6 header moves to `packet + removed`, which is returned. */
u32 mtun_header_restore(u8 *packet, const struct mtun_optimized *found);

/* The ECN field that leaves the tunnel; -1 if the packet must be dropped (RFC 6040 4.2). */
int mtun_header_ecn(u8 outer, u8 inner);

#endif

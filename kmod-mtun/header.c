// SPDX-License-Identifier: GPL-2.0-only
/*
 * The octets that a path puts around a packet, and takes off again.
 *
 * IPv6 in IPv6 (RFC 2473): DSCP and ECN are copied outwards (RFC 2983, RFC 6040 normal mode),
 * DSCP never inwards. The inner hop limit is not touched: the kernel counts the hop when it
 * forwards into or out of the device. A tunnel packet inside a tunnel gets a Tunnel
 * Encapsulation Limit, a plain one does not.
 *
 * Route optimization (RFC 6275 6.3, 6.4): the type 2 routing header comes before the Home
 * Address option, both before the upper layer. The transport checksum covers the home
 * addresses, which were there before, so it is right as it stands.
 */
#include "header.h"

int mtun_header_overhead(u8 encapsulation, const struct mtun_inner *inner)
{
	int overhead = 0;

	if (encapsulation == MTUN_ENCAPSULATION_TUNNEL) {
		if (inner->limited && !inner->limit)
			return -1;
		return MTUN_IPV6_HEADER +
		       (inner->limited || inner->tunnelled ? MTUN_HEADER_LIMIT : 0);
	}
	/* Where the new headers would stand is only clear in front of an upper layer. */
	if (inner->upper_at != MTUN_IPV6_HEADER || inner->tunnelled)
		return -1;
	if (encapsulation & MTUN_ENCAPSULATION_HOME_ADDRESS)
		overhead += MTUN_HEADER_HOME;
	if (encapsulation & MTUN_ENCAPSULATION_ROUTING)
		overhead += MTUN_HEADER_ROUTING;
	return overhead;
}

static void mtun_header_length(u8 *packet, u32 length)
{
	packet[4] = (u8)(length >> 8);
	packet[5] = (u8)length;
}

void mtun_header_tunnel(u8 *out, const struct mtun_outer *outer, const struct mtun_inner *inner,
			u32 inner_length)
{
	bool limit = inner->limited || inner->tunnelled;
	u32 length = inner_length + (limit ? MTUN_HEADER_LIMIT : 0);

	out[0] = (u8)(0x60 | inner->traffic_class >> 4);
	out[1] = (u8)(inner->traffic_class << 4 | (outer->flow_label >> 16 & 0x0f));
	out[2] = (u8)(outer->flow_label >> 8);
	out[3] = (u8)outer->flow_label;
	mtun_header_length(out, length > 0xffff ? 0 : length);
	out[6] = limit ? MTUN_PROTO_DESTINATION_OPTIONS : MTUN_PROTO_IPV6;
	out[7] = outer->hop_limit;
	memcpy(out + 8, outer->local, 16);
	memcpy(out + 24, outer->remote, 16);
	if (!limit)
		return;
	out += MTUN_IPV6_HEADER;
	out[0] = MTUN_PROTO_IPV6;
	out[1] = 0;
	out[2] = MTUN_OPTION_TUNNEL_LIMIT;
	out[3] = 1;
	out[4] = inner->limited ? (u8)(inner->limit - 1) : MTUN_TUNNEL_LIMIT;
	out[5] = MTUN_OPTION_PADN;
	out[6] = 1;
	out[7] = 0;
}

void mtun_header_optimize(u8 *packet, u8 encapsulation, const u8 *local, const u8 *remote)
{
	bool home = encapsulation & MTUN_ENCAPSULATION_HOME_ADDRESS;
	bool routing = encapsulation & MTUN_ENCAPSULATION_ROUTING;
	u32 added = (home ? MTUN_HEADER_HOME : 0) + (routing ? MTUN_HEADER_ROUTING : 0);
	u8 *at = packet + MTUN_IPV6_HEADER;
	u8 *next = packet + 6;
	u32 length;
	u8 upper;

	memmove(packet, packet + added, MTUN_IPV6_HEADER);
	upper = packet[6];
	length = ((u32)packet[4] << 8 | packet[5]) + added;
	mtun_header_length(packet, length > 0xffff ? 0 : length);
	if (routing) {
		*next = MTUN_PROTO_ROUTING;
		next = at;
		at[1] = 2;
		at[2] = 2;
		at[3] = 1;
		memset(at + 4, 0, 4);
		memcpy(at + 8, packet + 24, 16);
		memcpy(packet + 24, remote, 16);
		at += MTUN_HEADER_ROUTING;
	}
	if (home) {
		*next = MTUN_PROTO_DESTINATION_OPTIONS;
		next = at;
		at[1] = 2;
		at[2] = MTUN_OPTION_PADN;
		at[3] = 2;
		at[4] = 0;
		at[5] = 0;
		at[6] = MTUN_OPTION_HOME_ADDRESS;
		at[7] = 16;
		memcpy(at + 8, packet + 8, 16);
		memcpy(packet + 8, local, 16);
	}
	*next = upper;
}

/* The Home Address in an options header that holds nothing else but padding; NULL if not so. */
static const u8 *mtun_header_home(const u8 *header, u32 length)
{
	const u8 *home = NULL;
	u32 at = 2;

	while (at < length) {
		u32 size;

		if (header[at] == MTUN_OPTION_PAD1) {
			at++;
			continue;
		}
		if (length - at < 2)
			return NULL;
		size = 2 + header[at + 1];
		if (size > length - at)
			return NULL;
		if (header[at] == MTUN_OPTION_HOME_ADDRESS && size == 18 && !home)
			home = header + at + 2;
		else if (header[at] != MTUN_OPTION_PADN)
			return NULL;
		at += size;
	}
	return home;
}

bool mtun_header_optimized(const u8 *packet, u32 linear, struct mtun_optimized *found)
{
	u32 at = MTUN_IPV6_HEADER;
	u8 next;

	if (linear < MTUN_IPV6_HEADER)
		return false;
	memcpy(found->source, packet + 8, 16);
	memcpy(found->destination, packet + 24, 16);
	found->encapsulation = 0;
	next = packet[6];
	if (next == MTUN_PROTO_ROUTING) {
		if (linear < at + MTUN_HEADER_ROUTING || packet[at + 1] != 2 ||
		    packet[at + 2] != 2 || packet[at + 3] != 1)
			return false;
		memcpy(found->destination, packet + at + 8, 16);
		found->encapsulation |= MTUN_ENCAPSULATION_ROUTING;
		next = packet[at];
		at += MTUN_HEADER_ROUTING;
	}
	if (next == MTUN_PROTO_DESTINATION_OPTIONS && linear >= at + 8) {
		u32 length = (packet[at + 1] + 1u) * 8;
		const u8 *home = linear >= at + length ?
				 mtun_header_home(packet + at, length) : NULL;

		if (home) {
			memcpy(found->source, home, 16);
			found->encapsulation |= MTUN_ENCAPSULATION_HOME_ADDRESS;
			next = packet[at];
			at += length;
		}
	}
	/* A length field that ends inside these headers lies. */
	if (((u32)packet[4] << 8 | packet[5]) + MTUN_IPV6_HEADER < at)
		return false;
	found->next = next;
	found->length = at;
	return found->encapsulation;
}

u32 mtun_header_restore(u8 *packet, const struct mtun_optimized *found)
{
	u32 removed = found->length - MTUN_IPV6_HEADER;
	u32 length = ((u32)packet[4] << 8 | packet[5]) - removed;
	u8 *inner = packet + removed;

	memmove(inner, packet, MTUN_IPV6_HEADER);
	mtun_header_length(inner, length);
	inner[6] = found->next;
	memcpy(inner + 8, found->source, 16);
	memcpy(inner + 24, found->destination, 16);
	return removed;
}

int mtun_header_ecn(u8 outer, u8 inner)
{
	enum { NOT_ECT, ECT_1, ECT_0, CE };

	outer &= 3;
	inner &= 3;
	if (inner == NOT_ECT)
		return outer == CE ? -1 : NOT_ECT;
	if (inner == CE || outer == CE)
		return CE;
	return outer == ECT_1 ? ECT_1 : inner;
}

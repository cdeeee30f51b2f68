// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the octets of an inner packet to the fields that a decision may consult.
 *
 * It reads and judges nothing: what it cannot read whole goes up, where the same packet is read
 * by the code that decides. So being unable to say is never wrong here, only slow.
 */
#include "key.h"

static bool mtun_key_has_ports(u8 protocol)
{
	return protocol == MTUN_PROTO_TCP || protocol == MTUN_PROTO_UDP ||
	       protocol == MTUN_PROTO_DCCP || protocol == MTUN_PROTO_SCTP ||
	       protocol == MTUN_PROTO_UDP_LITE;
}

/* Looks for a Tunnel Encapsulation Limit (RFC 2473 4.1.1); false if an option overruns. */
static bool mtun_key_options(const u8 *options, u32 length, struct mtun_inner *inner)
{
	u32 at = 0;

	while (at < length) {
		u32 size;

		if (options[at] == MTUN_OPTION_PAD1) {
			at++;
			continue;
		}
		if (length - at < 2)
			return false;
		size = 2 + options[at + 1];
		if (size > length - at)
			return false;
		if (options[at] == MTUN_OPTION_TUNNEL_LIMIT && size == 3 && !inner->limited) {
			inner->limited = true;
			inner->limit = options[at + 2];
		}
		at += size;
	}
	return true;
}

/* Whether `wanted` octets are at hand; if not, what to answer. */
static enum mtun_parse mtun_key_need(u32 wanted, u32 linear, u32 total, struct mtun_inner *inner)
{
	if (wanted <= linear)
		return MTUN_PARSE_OK;
	if (wanted > total || wanted > MTUN_CHAIN_OCTETS)
		return MTUN_PARSE_HEADERS;
	inner->pull = wanted;
	return MTUN_PARSE_PULL;
}

/* Ports, SPI or ICMPv6 type, from the upper layer at `at`. */
static enum mtun_parse mtun_key_upper(const u8 *packet, u32 linear, u32 total,
				      struct mtun_inner *inner, u32 at)
{
	struct mtun_key *key = &inner->key;
	enum mtun_parse parse;

	if (mtun_key_has_ports(key->protocol)) {
		parse = mtun_key_need(at + 4, linear, total, inner);
		if (parse != MTUN_PARSE_OK)
			return parse;
		memcpy(&key->source_port, packet + at, 2);
		memcpy(&key->destination_port, packet + at + 2, 2);
		key->present |= MTUN_PRESENT_PORTS;
	} else if (key->protocol == MTUN_PROTO_ESP) {
		parse = mtun_key_need(at + 4, linear, total, inner);
		if (parse != MTUN_PARSE_OK)
			return parse;
		memcpy(&key->spi, packet + at, 4);
		key->present |= MTUN_PRESENT_SPI;
	} else if (key->protocol == MTUN_PROTO_ICMPV6) {
		parse = mtun_key_need(at + 1, linear, total, inner);
		if (parse != MTUN_PARSE_OK)
			return parse;
		key->icmp_type = packet[at];
		key->present |= MTUN_PRESENT_ICMP_TYPE;
	}
	inner->upper_at = at;
	inner->tunnelled = key->protocol == MTUN_PROTO_IPV6;
	return MTUN_PARSE_OK;
}

enum mtun_parse mtun_key_parse(const u8 *packet, u32 linear, u32 total, struct mtun_inner *inner)
{
	struct mtun_key *key = &inner->key;
	u32 at = MTUN_IPV6_HEADER;
	enum mtun_parse parse;
	unsigned int headers;
	u8 next;

	memset(inner, 0, sizeof(*inner));
	if (total < MTUN_IPV6_HEADER)
		return MTUN_PARSE_LENGTH;
	parse = mtun_key_need(MTUN_IPV6_HEADER, linear, total, inner);
	if (parse != MTUN_PARSE_OK)
		return parse;
	if (packet[0] >> 4 != 6)
		return MTUN_PARSE_VERSION;
	if (((u32)packet[4] << 8 | packet[5]) + MTUN_IPV6_HEADER != total)
		return MTUN_PARSE_LENGTH;
	inner->traffic_class = (u8)(packet[0] << 4 | packet[1] >> 4);
	inner->hop_limit = packet[7];
	inner->first = packet[6];
	key->dscp = inner->traffic_class >> 2;
	key->flow_label = cpu_to_be32((u32)(packet[1] & 0x0f) << 16 | (u32)packet[2] << 8 |
				      packet[3]);
	memcpy(key->source, packet + 8, 16);
	memcpy(key->destination, packet + 24, 16);

	next = packet[6];
	for (headers = 0; headers < MTUN_CHAIN_HEADERS; headers++) {
		u32 length;

		if (next == MTUN_PROTO_FRAGMENT)
			return MTUN_PARSE_FRAGMENT;
		/* A routing header makes the destination a matter of judgement. */
		if (next == MTUN_PROTO_ROUTING)
			return MTUN_PARSE_HEADERS;
		if (next != MTUN_PROTO_HOP_BY_HOP && next != MTUN_PROTO_DESTINATION_OPTIONS &&
		    next != MTUN_PROTO_AH) {
			key->protocol = next;
			return mtun_key_upper(packet, linear, total, inner, at);
		}
		/* Hop-by-Hop Options come first or not at all (RFC 8200 4.1). */
		if (next == MTUN_PROTO_HOP_BY_HOP && headers)
			return MTUN_PARSE_HEADERS;
		parse = mtun_key_need(at + 8, linear, total, inner);
		if (parse != MTUN_PARSE_OK)
			return parse;
		length = next == MTUN_PROTO_AH ? (packet[at + 1] + 2u) * 4 :
						 (packet[at + 1] + 1u) * 8;
		parse = mtun_key_need(at + length, linear, total, inner);
		if (parse != MTUN_PARSE_OK)
			return parse;
		if (next == MTUN_PROTO_AH) {
			/* The shortest AH is twelve octets without a value (RFC 4302 2). */
			if (length < 12)
				return MTUN_PARSE_HEADERS;
			memcpy(&key->spi, packet + at + 4, 4);
			key->present |= MTUN_PRESENT_SPI;
		} else if (!mtun_key_options(packet + at + 2, length - 2, inner)) {
			return MTUN_PARSE_HEADERS;
		}
		next = packet[at];
		at += length;
	}
	return MTUN_PARSE_HEADERS;
}

#define MTUN_KEY_WORDS (sizeof(struct mtun_key) / sizeof(u32))

void mtun_key_mask(struct mtun_key *out, const struct mtun_key *key, const struct mtun_key *mask)
{
	const u32 *k = (const u32 *)key, *m = (const u32 *)mask;
	u32 *o = (u32 *)out;
	unsigned int i;

	for (i = 0; i < MTUN_KEY_WORDS; i++)
		o[i] = k[i] & m[i];
}

bool mtun_key_equal(const struct mtun_key *a, const struct mtun_key *b)
{
	return !memcmp(a, b, sizeof(*a));
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pure parts in user space, under sanitizers: tables first, then noise.
 *
 *   pure_test            the tables, and noise from a fixed seed
 *   pure_test FILE...    each file as a packet (a fuzz corpus)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "header.h"
#include "key.h"

static unsigned int failures;

#define EXPECT(what, condition)						\
	do {								\
		if (!(condition)) {					\
			failures++;					\
			printf("not ok %s: %s\n", what, #condition);	\
		}							\
	} while (0)

static const u8 home[16] = { 0x20, 1, 0xd, 0xb8, 1, [15] = 1 };
static const u8 peer[16] = { 0x20, 1, 0xd, 0xb8, 2, [15] = 2 };
static const u8 care_of[16] = { 0x20, 1, 0xd, 0xb8, 3, [15] = 3 };
static const u8 agent[16] = { 0x20, 1, 0xd, 0xb8, 4, [15] = 4 };

/* A packet with this next header and body; returns its length. */
static u32 packet_of(u8 *out, u8 next, const u8 *body, u32 length)
{
	memset(out, 0, MTUN_IPV6_HEADER);
	out[0] = 0x6b;		/* traffic class 0xb9: DSCP 46, ECN 1 */
	out[1] = 0x9a;
	out[2] = 0xbc;
	out[3] = 0xde;
	out[4] = (u8)(length >> 8);
	out[5] = (u8)length;
	out[6] = next;
	out[7] = 17;
	memcpy(out + 8, home, 16);
	memcpy(out + 24, peer, 16);
	memcpy(out + MTUN_IPV6_HEADER, body, length);
	return MTUN_IPV6_HEADER + length;
}

/* In memory of exactly that size, so that one octet too far is seen. */
static enum mtun_parse parse_exact(const u8 *packet, u32 linear, u32 total,
				   struct mtun_inner *inner)
{
	u8 *copy = malloc(linear ? linear : 1);
	enum mtun_parse parse;

	memcpy(copy, packet, linear);
	parse = mtun_key_parse(copy, linear, total, inner);
	free(copy);
	return parse;
}

static void keys(void)
{
	static const struct {
		const char *what;
		u8 next;
		u8 body[40];
		u32 length;
		enum mtun_parse parse;
		u8 protocol, present;
		u16 sport, dport;
		u32 upper_at;
		bool tunnelled, limited;
		u8 limit;
	} cases[] = {
		{ "tcp", 6, { 0x12, 0x34, 0, 80 }, 20, MTUN_PARSE_OK, 6, MTUN_PRESENT_PORTS,
		  0x1234, 80, 40 },
		{ "udp", 17, { 0, 53, 1, 0 }, 8, MTUN_PARSE_OK, 17, MTUN_PRESENT_PORTS, 53, 256,
		  40 },
		{ "ports cut", 17, { 0, 53, 1 }, 3, MTUN_PARSE_HEADERS },
		{ "icmpv6", 58, { 128 }, 8, MTUN_PARSE_OK, 58, MTUN_PRESENT_ICMP_TYPE, 0, 0, 40 },
		{ "icmpv6 empty", 58, { 0 }, 0, MTUN_PARSE_HEADERS },
		{ "esp", 50, { 1, 2, 3, 4 }, 8, MTUN_PARSE_OK, 50, MTUN_PRESENT_SPI, 0, 0, 40 },
		{ "nothing follows", 59, { 0 }, 0, MTUN_PARSE_OK, 59, 0, 0, 0, 40 },
		{ "fragment", 44, { 6 }, 8, MTUN_PARSE_FRAGMENT },
		{ "routing", 43, { 6 }, 24, MTUN_PARSE_HEADERS },
		{ "options then udp", 60, { 17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2 }, 16,
		  MTUN_PARSE_OK, 17, MTUN_PRESENT_PORTS, 1, 2, 48 },
		{ "tunnel limit", 60, { 41, 0, 4, 1, 3, 1, 1, 0 }, 16, MTUN_PARSE_OK, 41, 0, 0, 0,
		  48, true, true, 3 },
		{ "tunnel", 41, { 0x60 }, 40, MTUN_PARSE_OK, 41, 0, 0, 0, 40, true },
		{ "option overruns", 60, { 17, 0, 1, 5, 0, 0, 0, 0 }, 8, MTUN_PARSE_HEADERS },
		{ "option without length", 60, { 17, 0, 0, 0, 0, 0, 0, 1 }, 8,
		  MTUN_PARSE_HEADERS },
		{ "options longer than the packet", 60, { 17, 3 }, 8, MTUN_PARSE_HEADERS },
		{ "hop-by-hop behind options", 60, { 0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4 }, 16,
		  MTUN_PARSE_HEADERS },
		{ "ah then tcp", 51, { 6, 1, 0, 0, 9, 9, 9, 9, 0, 0, 0, 1, 0, 5, 0, 6 }, 16,
		  MTUN_PARSE_OK, 6, MTUN_PRESENT_SPI | MTUN_PRESENT_PORTS, 5, 6, 52 },
		{ "ah too short", 51, { 6, 0, 0, 0, 9, 9, 9, 9 }, 12, MTUN_PARSE_HEADERS },
	};
	u8 packet[128];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		u32 total = packet_of(packet, cases[i].next, cases[i].body, cases[i].length);
		struct mtun_inner inner;

		EXPECT(cases[i].what, parse_exact(packet, total, total, &inner) == cases[i].parse);
		if (cases[i].parse != MTUN_PARSE_OK)
			continue;
		EXPECT(cases[i].what, inner.key.protocol == cases[i].protocol);
		EXPECT(cases[i].what, inner.key.present == cases[i].present);
		EXPECT(cases[i].what, ntohs(inner.key.source_port) == cases[i].sport);
		EXPECT(cases[i].what, ntohs(inner.key.destination_port) == cases[i].dport);
		EXPECT(cases[i].what, inner.upper_at == cases[i].upper_at);
		EXPECT(cases[i].what, inner.tunnelled == cases[i].tunnelled);
		EXPECT(cases[i].what, inner.limited == cases[i].limited);
		EXPECT(cases[i].what, inner.limit == cases[i].limit);
		EXPECT(cases[i].what, inner.key.dscp == 46 && inner.traffic_class == 0xb9);
		EXPECT(cases[i].what, ntohl(inner.key.flow_label) == 0xabcde);
		EXPECT(cases[i].what, inner.hop_limit == 17);
		EXPECT(cases[i].what, !memcmp(inner.key.source, home, 16));
		EXPECT(cases[i].what, !memcmp(inner.key.destination, peer, 16));
	}
}

static void lengths(void)
{
	u8 packet[128], body[20] = { 0, 1, 0, 2 };
	u32 total = packet_of(packet, 6, body, sizeof(body));
	struct mtun_inner inner;
	u32 linear;

	EXPECT("longer than it says", mtun_key_parse(packet, total + 1, total + 1, &inner) ==
				      MTUN_PARSE_LENGTH);
	EXPECT("shorter than it says", mtun_key_parse(packet, total - 1, total - 1, &inner) ==
				       MTUN_PARSE_LENGTH);
	EXPECT("no header", mtun_key_parse(packet, 39, 39, &inner) == MTUN_PARSE_LENGTH);
	for (linear = 0; linear < 44; linear++) {
		EXPECT("not all at hand", parse_exact(packet, linear, total, &inner) ==
					  MTUN_PARSE_PULL);
		EXPECT("asks for what it needs", inner.pull == (linear < 40 ? 40 : 44));
	}
	packet[0] = 0x45;
	EXPECT("IPv4", mtun_key_parse(packet, total, total, &inner) == MTUN_PARSE_VERSION);
}

static void masks(void)
{
	struct mtun_key key, mask, out, twice;

	memset(&key, 0xa5, sizeof(key));
	memset(&mask, 0, sizeof(mask));
	memset(mask.source, 0xff, 8);
	mask.protocol = 0xff;
	mtun_key_mask(&out, &key, &mask);
	EXPECT("only what counts", out.source[7] == 0xa5 && !out.source[8] &&
				   out.protocol == 0xa5 && !out.dscp && !out.ingress);
	mtun_key_mask(&twice, &out, &mask);
	EXPECT("masking twice is masking once", mtun_key_equal(&out, &twice));
	EXPECT("the key has no holes", sizeof(key) == 56);
}

static void congestion(void)
{
	/* RFC 6040 figure 4: rows inner Not-ECT, ECT(0), ECT(1), CE; columns outer the same. */
	static const u8 code[4] = { 0, 2, 1, 3 };
	static const int want[4][4] = {
		{ 0, 0, 0, -1 }, { 2, 2, 1, 3 }, { 1, 1, 1, 3 }, { 3, 3, 3, 3 },
	};
	int inner, outer;

	for (inner = 0; inner < 4; inner++)
		for (outer = 0; outer < 4; outer++)
			EXPECT("RFC 6040 4.2", mtun_header_ecn(0xb8 | code[outer], code[inner]) ==
					       want[inner][outer]);
}

static void tunnels(void)
{
	const struct mtun_outer outer = { care_of, agent, 0x12345, 64 };
	u8 packet[256], body[40] = { 0, 1, 0, 2 }, out[64];
	u32 total = packet_of(packet, 6, body, 20);
	struct mtun_inner inner, again;

	mtun_key_parse(packet, total, total, &inner);
	EXPECT("plain", mtun_header_overhead(0, &inner) == 40);
	mtun_header_tunnel(out, &outer, &inner, total);
	EXPECT("outer starts", out[0] == 0x6b && out[1] == 0x91 && out[2] == 0x23 && out[3] == 0x45);
	EXPECT("outer length", out[4] == 0 && out[5] == total && out[6] == 41 && out[7] == 64);
	EXPECT("outer addresses", !memcmp(out + 8, care_of, 16) && !memcmp(out + 24, agent, 16));

	total = packet_of(packet, 41, body, 40);
	mtun_key_parse(packet, total, total, &inner);
	EXPECT("nested", mtun_header_overhead(0, &inner) == 48);
	mtun_header_tunnel(out, &outer, &inner, total);
	EXPECT("nested chain", out[6] == 60 && out[40] == 41 && out[42] == 4 && out[44] == 4);
	/* What was written is read back. */
	memcpy(packet, out, 48);
	memset(packet + 48, 0, 80);
	EXPECT("reads back", mtun_key_parse(packet, 128, 128, &again) == MTUN_PARSE_OK &&
			     again.limited && again.limit == 4 && again.tunnelled);
	mtun_header_tunnel(out, &outer, &again, 128);
	EXPECT("one less", out[44] == 3);
	again.limit = 0;
	EXPECT("forbidden at zero", mtun_header_overhead(0, &again) == -1);
}

/* Wrapping and unwrapping gives the same octets, for each of the three ways. */
static void optimized(void)
{
	u8 body[20] = { 0, 1, 0, 2 }, encapsulation;

	for (encapsulation = 1; encapsulation <= 3; encapsulation++) {
		u8 before[64], packet[128];
		u32 total = packet_of(before, 6, body, sizeof(body)), removed;
		struct mtun_optimized found;
		struct mtun_inner inner;
		int overhead;

		mtun_key_parse(before, total, total, &inner);
		overhead = mtun_header_overhead(encapsulation, &inner);
		EXPECT("overhead", overhead == (encapsulation == 3 ? 48 : 24));
		memset(packet, 0xee, sizeof(packet));
		memcpy(packet + overhead, before, total);
		mtun_header_optimize(packet, encapsulation, care_of, agent);
		EXPECT("outer source", !memcmp(packet + 8, encapsulation & 1 ? care_of : home, 16));
		EXPECT("outer destination",
		       !memcmp(packet + 24, encapsulation & 2 ? agent : peer, 16));
		EXPECT("length", packet[5] == total - 40 + (u32)overhead);
		EXPECT("found", mtun_header_optimized(packet, total + (u32)overhead, &found));
		EXPECT("which", found.encapsulation == encapsulation && found.next == 6);
		removed = mtun_header_restore(packet, &found);
		EXPECT("same octets", removed == (u32)overhead &&
				      !memcmp(packet + removed, before, total));
		inner.upper_at = 48;
		EXPECT("not behind options", mtun_header_overhead(encapsulation, &inner) == -1);
	}
}

static void try_packet(const u8 *octets, u32 length)
{
	struct mtun_optimized found;
	struct mtun_inner inner;
	u8 *copy = malloc(length ? length : 1);
	u32 linear;

	memcpy(copy, octets, length);
	mtun_key_parse(copy, length, length, &inner);
	if (mtun_header_optimized(copy, length, &found) && found.length <= length)
		mtun_header_restore(copy, &found);
	free(copy);
	for (linear = 0; linear < length && linear < 96; linear += 7)
		parse_exact(octets, linear, length, &inner);
}

static void noise(void)
{
	static const u8 nexts[] = { 0, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 135 };
	u8 packet[512];
	u32 round, i;

	srandom(1);
	for (round = 0; round < 200000; round++) {
		u32 body = (u32)random() % 200, total;
		u8 junk[200];

		for (i = 0; i < body; i++)
			junk[i] = random() % 3 ? (u8)(random() % 5) : (u8)random();
		for (i = 0; i + 8 < body; i += 8)
			if (random() % 2)
				junk[i] = nexts[random() % sizeof(nexts)];
		total = packet_of(packet, nexts[random() % sizeof(nexts)], junk, body);
		if (!(random() % 4))
			packet[random() % total] = (u8)random();
		try_packet(packet, total);
	}
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		static u8 octets[65536];
		FILE *file = fopen(argv[i], "rb");

		if (!file)
			return 2;
		try_packet(octets, (u32)fread(octets, 1, sizeof(octets), file));
		fclose(file);
	}
	keys();
	lengths();
	masks();
	congestion();
	tunnels();
	optimized();
	noise();
	printf("%s\n", failures ? "failed" : "pure parts ok");
	return failures ? 1 : 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What nobody honest sends, from a seed: messages and packets that are nearly right.
 *
 * A packet begins as one that a path would take, of one of the shapes that the module tells apart;
 * then some of its octets are changed, it is cut, or padded. Every fourth is a superpacket or has its
 * checksum still to come, as its sender says, who may lie about that too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "noise.h"

/* Of kernels from 6.2 on. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define HEADER 40
#define LONGEST 16384

/* The addresses of one flow, and of the path it takes. */
struct ends {
	uint8_t from[16], to[16];
	uint8_t source[16], destination[16];
	bool wrapped;
};

static uint32_t below(uint32_t limit)
{
	return (uint32_t)random() % limit;
}

static void junk(uint8_t *out, uint32_t length)
{
	while (length--)
		*out++ = (uint8_t)random();
}

static void ipv6(uint8_t *out, uint8_t next, uint32_t payload, const uint8_t *source,
		 const uint8_t *destination)
{
	memset(out, 0, HEADER);
	out[0] = (uint8_t)(0x60 | below(16));
	junk(out + 1, 3);
	out[4] = (uint8_t)(payload >> 8);
	out[5] = (uint8_t)payload;
	out[6] = next;
	out[7] = below(8) ? 64 : (uint8_t)below(3);
	memcpy(out + 8, source, 16);
	memcpy(out + 24, destination, 16);
}

/* An extension header of this kind in front of `next`; its octets. */
static uint32_t extension(uint8_t *out, uint8_t kind, uint8_t next)
{
	uint32_t length = kind == IPPROTO_FRAGMENT ? 8 : 8 * (1 + below(3)), at;

	memset(out, 0, length);
	out[0] = next;
	out[1] = (uint8_t)(kind == IPPROTO_AH ? length / 4 - 2 : length / 8 - 1);
	if (kind == IPPROTO_FRAGMENT) {
		junk(out + 1, 7);
	} else if (kind == IPPROTO_ROUTING) {
		out[2] = (uint8_t)below(5);
		out[3] = (uint8_t)below(3);
	} else if (kind != IPPROTO_AH) {
		/* Options that fill it, if nothing is changed later on. */
		for (at = 2; at + 2 < length; at += 2u + out[at + 1]) {
			out[at] = below(4) ? 1 : (uint8_t)random();
			out[at + 1] = (uint8_t)below(length - at - 1);
		}
	}
	return length;
}

/* An inner packet: often a plain one, else with a chain of headers. `upper` is where that ends. */
static uint32_t inner_packet(uint8_t *out, const struct ends *ends, uint32_t *upper)
{
	static const uint8_t uppers[] = { 6, 17, 17, 58, 50, 59, 41, 132, 135, 136, 255 };
	static const uint8_t kinds[] = { 0, 43, 44, 51, 60, 60, 135 };
	uint8_t last = uppers[below(sizeof(uppers))], first = last, chain[8];
	uint32_t headers = below(3) ? 0 : below(8), at = HEADER, i, body;

	for (i = 0; i < headers; i++)
		chain[i] = kinds[below(sizeof(kinds))];
	if (headers)
		first = chain[0];
	for (i = 0; i < headers; i++)
		at += extension(out + at, chain[i], i + 1 < headers ? chain[i + 1] : last);
	*upper = at;
	body = below(4) ? below(200) : below(8) ? below(1300) : below(LONGEST - 1024);
	junk(out + at, body);
	/* A TCP header of its least length, so that it may be cut into segments. */
	if (body > 20 && last == 6)
		out[at + 12] = 0x50;
	ipv6(out, first, at + body - HEADER, ends->source, ends->destination);
	return at + body;
}

/* Wraps it in one of the shapes that there are. */
static uint32_t outer_packet(uint8_t *out, const struct ends *ends, uint32_t *upper)
{
	uint8_t inner[LONGEST], next;
	uint32_t length = inner_packet(inner, ends, upper), added = 0, shape = below(8);

	if (shape < 2) {
		/* As a tunnel, with a header in front of the inner one at times. */
		if (shape)
			added = extension(out + HEADER, IPPROTO_DSTOPTS, IPPROTO_IPV6);
		memcpy(out + HEADER + added, inner, length);
		ipv6(out, added ? IPPROTO_DSTOPTS : IPPROTO_IPV6, added + length, ends->from, ends->to);
		*upper += HEADER + added;
		return HEADER + added + length;
	}
	if (shape == 2) {
		added = extension(out + HEADER, IPPROTO_FRAGMENT, IPPROTO_IPV6);
		memcpy(out + HEADER + added, inner, length);
		ipv6(out, IPPROTO_FRAGMENT, added + length, ends->from, ends->to);
		*upper += HEADER + added;
		return HEADER + added + length;
	}
	/* Route-optimized: routing header, option, or both. */
	next = inner[6];
	if (shape != 4) {
		uint8_t *home = out + HEADER + (shape > 4 ? 24 : 0);

		memcpy(home, (uint8_t[]) { next, 2, 1, 2, 0, 0, 0xc9, 16 }, 8);
		memcpy(home + 8, ends->source, 16);
		next = IPPROTO_DSTOPTS;
		added += 24;
	}
	if (shape >= 4) {
		memcpy(out + HEADER, (uint8_t[]) { next, 2, 2, 1, 0, 0, 0, 0 }, 8);
		memcpy(out + HEADER + 8, ends->destination, 16);
		next = IPPROTO_ROUTING;
		added += 24;
	}
	memcpy(out + HEADER + added, inner + HEADER, length - HEADER);
	ipv6(out, next, added + length - HEADER, ends->from, ends->to);
	*upper += added;
	return length + added;
}

/* Changes a few octets where they matter, cuts, pads. */
static uint32_t spoil(uint8_t *packet, uint32_t length)
{
	uint32_t changes = below(2) ? 0 : 1 + below(4);

	while (changes--)
		packet[below(length < 160 ? length : 160)] = (uint8_t)random();
	if (!below(8))
		return 1 + below(length);
	if (!below(8)) {
		uint32_t more = 1 + below(64);

		junk(packet + length, more);
		return length + more;
	}
	return length;
}

/* What is said of a packet beside its octets: mostly nothing, else nearly the truth. */
static struct virtio_net_hdr beside(uint32_t upper, uint32_t length)
{
	static const uint8_t kinds[] = { 0, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
					 VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_HDR_GSO_TCPV4 };
	struct virtio_net_hdr said = {};

	if (below(4))
		return said;
	said.flags = below(8) ? VIRTIO_NET_HDR_F_NEEDS_CSUM : (uint8_t)below(4);
	said.gso_type = kinds[below(sizeof(kinds))];
	if (!below(8))
		said.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	said.csum_start = (uint16_t)upper;
	said.csum_offset = said.gso_type & VIRTIO_NET_HDR_GSO_TCPV6 ? 16 : 6;
	said.hdr_len = (uint16_t)(upper + 20);
	said.gso_size = (uint16_t)(1 + below(1400));
	if (!below(4))
		((uint8_t *)&said)[below(sizeof(said))] = (uint8_t)random();
	if (!below(16))
		said.csum_start = (uint16_t)below(length + 8);
	return said;
}

static int address(const char *word, uint8_t *out)
{
	return !strcmp(word, "-") || inet_pton(AF_INET6, word, out) == 1 ? 0 : -EINVAL;
}

/* A packet socket that says something beside each packet. */
static int open_link(const char *device)
{
	struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IPV6),
				    .sll_ifindex = (int)if_nametoindex(device) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || !link.sll_ifindex ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&link, sizeof(link)))
		return -1;
	return fd;
}

int noise_packets(char **argv)
{
	/* A longest packet, its outer headers, its padding. */
	static uint8_t frame[sizeof(struct virtio_net_hdr) + ETHER_HDR_LEN + LONGEST + 1024];
	uint32_t count, i, link = 0, upper, length, sent = 0;
	struct ends ends = {};
	struct virtio_net_hdr said;
	uint8_t *packet;
	int fd;

	for (i = 0; i < 8; i++)
		if (!argv[i])
			return -EINVAL;
	fd = open_link(argv[0]);
	if (fd < 0)
		return -ENODEV;
	packet = frame + sizeof(said);
	if (strcmp(argv[1], "-")) {
		uint8_t *to = packet;

		if (sscanf(argv[1], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3,
			   to + 4, to + 5) != 6)
			return -EINVAL;
		memcpy(packet + 6, (uint8_t[]) { 2, 0, 0, 0, 0, 1, 0x86, 0xdd }, 8);
		link = ETHER_HDR_LEN;
	}
	srandom((unsigned int)atoi(argv[2]));
	count = (uint32_t)atoi(argv[3]);
	ends.wrapped = strcmp(argv[4], "-");
	if (address(argv[4], ends.from) || address(argv[5], ends.to) ||
	    address(argv[6], ends.source) || address(argv[7], ends.destination))
		return -EINVAL;
	packet += link;
	for (i = 0; i < count; i++) {
		length = (ends.wrapped ? outer_packet : inner_packet)(packet, &ends, &upper);
		length = spoil(packet, length);
		said = beside(link + upper, link + length);
		memcpy(frame, &said, sizeof(said));
		/* What cannot be said of it, or does not fit the link, is refused before it is sent. */
		if (send(fd, frame, sizeof(said) + link + length, 0) >= 0)
			sent++;
	}
	printf("noise %u sent %u\n", count, sent);
	close(fd);
	return 0;
}

/* A packet to be sent or received, and what is said beside it. */
static void put_execute(struct genl *genl)
{
	static uint8_t packet[LONGEST + 1024];
	struct ends ends = { .source = { 0x20, 1, 0xd, 0xb8 }, .destination = { 0x20, 1, 0xd, 0xb8 } };
	struct virtio_net_hdr said;
	uint32_t upper, length;

	length = spoil(packet, inner_packet(packet, &ends, &upper));
	said = beside(upper, length);
	genl_put_u8(genl, MTUN_A_DIRECTION, (uint8_t)below(2));
	genl_put_u32(genl, MTUN_A_PATH, 1);
	genl_put(genl, MTUN_A_PACKET, packet, length);
	if (below(2))
		genl_put(genl, MTUN_A_VNET, &said, sizeof(said));
}

/* From cut headers to well-formed attributes with wrong contents. */
int noise_messages(struct genl *genl, uint32_t ifindex, uint32_t seed, uint32_t count)
{
	static const size_t lengths[] = { 0, 1, 2, 4, 8, 10, 16, 40, 56, 127 };
	uint32_t i, refused = 0;

	srandom(seed);
	for (i = 0; i < count; i++) {
		bool execute = !below(4);
		uint32_t attributes = execute ? below(2) : below(8);
		struct nlmsghdr *message;
		uint8_t value[128];

		genl_begin(genl, execute ? MTUN_CMD_EXECUTE : (uint8_t)below(MTUN_CMD_MAX + 4),
			   NLM_F_ACK | (execute || below(16) ? 0 : NLM_F_DUMP));
		if (below(8))
			genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		if (execute)
			put_execute(genl);
		while (attributes--) {
			junk(value, sizeof(value));
			genl_put(genl, (uint16_t)below(MTUN_A_MAX + 4), value,
				 lengths[below(sizeof(lengths) / sizeof(*lengths))]);
		}
		message = (struct nlmsghdr *)(genl->out + genl->last);
		if (!below(8) && message->nlmsg_len > 24)
			((uint8_t *)message)[20 + below(message->nlmsg_len - 20)] ^= (uint8_t)random();
		if (!freopen("/dev/null", "w", stderr) || genl_talk(genl, NULL, NULL))
			refused++;
	}
	printf("malformed %u refused %u\n", i, refused);
	return 0;
}

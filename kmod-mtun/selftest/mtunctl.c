// SPDX-License-Identifier: GPL-2.0-only
/*
 * mtunctl: the module's netlink family by hand, for tests and for looking.
 *
 *   mtunctl device DEV [mask-out FIELDS] [mask-in FIELDS] [flow-limit N] [flow-idle N]
 *                      [miss-limit N] [lease MS] [doors DEV=N,...]
 *   mtunctl path add|set DEV path N [registration N] [generation N] [local A] [remote A]
 *                      [link DEV] [next-hop A] [mtu N] [hop-limit N] [mark N]
 *                      [encapsulation N]
 *   mtunctl path delete DEV path N | path list DEV
 *   mtunctl generation DEV registration N generation N
 *   mtunctl attach|detach DEV link DEV
 *   mtunctl flow add|delete|take|flush DEV [out|in] [path N] [registration N] [generation N]
 *                      [lasts MS] [label N] [src A] [dst A] [proto N] [sport N] [dport N]
 *                      [ingress N] [mask FIELDS]
 *   mtunctl flow list DEV
 *   mtunctl counters DEV
 *   mtunctl fill DEV path N generation N count N     adds that many flows, tells the rate
 *   mtunctl answer DEV path N generation N [count N] decides every miss: out by that path, in
 *                      by the path it came; ends after `count` misses
 *   mtunctl malformed DEV seed N count N             sends nonsense over netlink
 *   mtunctl noise DEV MAC|- SEED COUNT FROM|- TO|- SRC DST   and by a link, see noise.h
 *
 * FIELDS: a comma list of src dst proto ports dscp ingress label icmp spi uid all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "genl.h"
#include "noise.h"

static const char *const reasons[__MTUN_REASON_COUNT] = {
	"out-hit", "in-hit", "out-executed", "in-executed", "up-miss", "up-stale", "up-path-gone",
	"up-lease", "up-silent", "up-fragment", "up-version", "up-length", "up-headers", "up-hop-limit",
	"up-encapsulation-limit", "up-encapsulation", "up-outer", "drop-no-daemon",
	"drop-queue-full", "drop-no-route", "drop-too-big", "drop-congestion", "drop-no-memory",
	"drop-not-sent",
};

/* What the words on the command line said. */
struct words {
	uint32_t path, generation, count, seed, lasts, label;
	struct mtun_key key, mask;
	int direction;			/* -1: not said */
	bool keyed, masked, by_path, by_registration;
	uint32_t registration;
};

static void __attribute__((noreturn)) fail(const char *what, const char *word)
{
	fprintf(stderr, "mtunctl: %s: %s\n", what, word);
	exit(2);
}

static uint32_t number(const char *word)
{
	char *end;
	unsigned long value = strtoul(word, &end, 0);

	if (*end || end == word || value > UINT32_MAX)
		fail("not a number", word);
	return (uint32_t)value;
}

static void address(const char *word, void *out)
{
	if (inet_pton(AF_INET6, word, out) != 1)
		fail("not an address", word);
}

static uint32_t device(const char *name)
{
	uint32_t index = if_nametoindex(name);

	if (!index)
		fail("no such device", name);
	return index;
}

static struct mtun_key fields(const char *list)
{
	struct mtun_key mask = {};
	char *copy = strdup(list), *save = NULL, *word;

	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (!strcmp(word, "src")) {
			memset(mask.source, 0xff, 16);
		} else if (!strcmp(word, "dst")) {
			memset(mask.destination, 0xff, 16);
		} else if (!strcmp(word, "proto")) {
			mask.protocol = 0xff;
		} else if (!strcmp(word, "ports")) {
			mask.source_port = mask.destination_port = 0xffff;
			mask.present |= MTUN_PRESENT_PORTS;
		} else if (!strcmp(word, "dscp")) {
			mask.dscp = 0x3f;
		} else if (!strcmp(word, "ingress")) {
			mask.ingress = UINT32_MAX;
		} else if (!strcmp(word, "label")) {
			mask.flow_label = htonl(0xfffff);
		} else if (!strcmp(word, "icmp")) {
			mask.icmp_type = 0xff;
			mask.present |= MTUN_PRESENT_ICMP_TYPE;
		} else if (!strcmp(word, "spi")) {
			mask.spi = UINT32_MAX;
			mask.present |= MTUN_PRESENT_SPI;
		} else if (!strcmp(word, "uid")) {
			mask.uid = UINT32_MAX;
			mask.present |= MTUN_PRESENT_UID;
		} else if (!strcmp(word, "all")) {
			memset(&mask, 0xff, sizeof(mask));
		} else {
			fail("no such field", word);
		}
	}
	free(copy);
	return mask;
}

/* A comma list of DEV=N; nothing for an empty one. */
static void put_doors(struct genl *genl, const char *list)
{
	struct mtun_door doors[16];
	char *copy = strdup(list), *save = NULL, *word, *equals;
	size_t count = 0;

	for (word = strtok_r(copy, ",", &save); word && count < 16;
	     word = strtok_r(NULL, ",", &save)) {
		equals = strchr(word, '=');
		if (!equals)
			fail("no number", word);
		*equals = 0;
		doors[count++] = (struct mtun_door) { device(word), number(equals + 1) };
	}
	free(copy);
	genl_put(genl, MTUN_A_DOORS, doors, count * sizeof(*doors));
}

/* Words that become attributes as they are. */
static bool attribute(struct genl *genl, const char *word, const char *value)
{
	static const struct { const char *word; uint16_t type; } numbers[] = {
		{ "mtu", MTUN_A_MTU }, { "mark", MTUN_A_MARK },
		{ "flow-limit", MTUN_A_FLOW_LIMIT }, { "flow-idle", MTUN_A_FLOW_IDLE },
		{ "miss-limit", MTUN_A_MISS_LIMIT }, { "lease", MTUN_A_LEASE },
	}, addresses[] = {
		{ "local", MTUN_A_LOCAL }, { "remote", MTUN_A_REMOTE },
		{ "next-hop", MTUN_A_NEXT_HOP },
	}, octets[] = {
		{ "hop-limit", MTUN_A_HOP_LIMIT }, { "encapsulation", MTUN_A_ENCAPSULATION },
	}, masks[] = {
		{ "mask-out", MTUN_A_MASK_OUT }, { "mask-in", MTUN_A_MASK_IN },
	};
	struct in6_addr where;
	struct mtun_key mask;
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (!strcmp(word, numbers[i].word))
			return genl_put_u32(genl, numbers[i].type, number(value)), true;
	for (i = 0; i < sizeof(octets) / sizeof(*octets); i++)
		if (!strcmp(word, octets[i].word))
			return genl_put_u8(genl, octets[i].type, (uint8_t)number(value)), true;
	for (i = 0; i < sizeof(addresses) / sizeof(*addresses); i++)
		if (!strcmp(word, addresses[i].word)) {
			address(value, &where);
			return genl_put(genl, addresses[i].type, &where, sizeof(where)), true;
		}
	for (i = 0; i < sizeof(masks) / sizeof(*masks); i++)
		if (!strcmp(word, masks[i].word)) {
			mask = fields(value);
			return genl_put(genl, masks[i].type, &mask, sizeof(mask)), true;
		}
	if (!strcmp(word, "doors"))
		return put_doors(genl, value), true;
	if (strcmp(word, "link"))
		return false;
	genl_put_u32(genl, MTUN_A_LINK, device(value));
	return true;
}

/* Words that several commands understand. */
static bool known(struct words *words, const char *word, const char *value)
{
	if (!strcmp(word, "path")) {
		words->path = number(value);
		words->by_path = true;
	} else if (!strcmp(word, "registration")) {
		words->registration = number(value);
		words->by_registration = true;
	} else if (!strcmp(word, "generation")) {
		words->generation = number(value);
	} else if (!strcmp(word, "count")) {
		words->count = number(value);
	} else if (!strcmp(word, "seed")) {
		words->seed = number(value);
	} else if (!strcmp(word, "lasts")) {
		words->lasts = number(value);
	} else if (!strcmp(word, "label")) {
		words->label = number(value);
	} else if (!strcmp(word, "mask")) {
		words->mask = fields(value);
		words->masked = true;
	} else {
		words->keyed = true;
		if (!strcmp(word, "src"))
			address(value, words->key.source);
		else if (!strcmp(word, "dst"))
			address(value, words->key.destination);
		else if (!strcmp(word, "proto"))
			words->key.protocol = (uint8_t)number(value);
		else if (!strcmp(word, "sport"))
			words->key.source_port = htons((uint16_t)number(value));
		else if (!strcmp(word, "dport"))
			words->key.destination_port = htons((uint16_t)number(value));
		else if (!strcmp(word, "ingress"))
			words->key.ingress = number(value);
		else
			return false;
	}
	return true;
}

static struct words read_words(struct genl *genl, char **argv)
{
	struct words words = { .direction = -1 };

	for (; *argv; argv++) {
		if (!strcmp(*argv, "out") || !strcmp(*argv, "in")) {
			words.direction = !strcmp(*argv, "in");
			continue;
		}
		if (!argv[1])
			fail("a value is missing after", *argv);
		if (!known(&words, argv[0], argv[1]) && !attribute(genl, argv[0], argv[1]))
			fail("unknown word", *argv);
		argv++;
	}
	if (words.key.source_port || words.key.destination_port)
		words.key.present |= MTUN_PRESENT_PORTS;
	return words;
}

static const char *text(const void *address)
{
	static char buffer[4][INET6_ADDRSTRLEN];
	static unsigned int turn;

	turn = (turn + 1) % 4;
	return inet_ntop(AF_INET6, address, buffer[turn], INET6_ADDRSTRLEN);
}

static int print_device(const struct genl_attributes *a, void *context)
{
	(void)context;
	printf("flows %u\npaths %u\nflow-limit %u\nflow-idle %u\nmiss-limit %u\n",
	       genl_u32(a->at[MTUN_A_FLOWS]), genl_u32(a->at[MTUN_A_PATHS]),
	       genl_u32(a->at[MTUN_A_FLOW_LIMIT]), genl_u32(a->at[MTUN_A_FLOW_IDLE]),
	       genl_u32(a->at[MTUN_A_MISS_LIMIT]));
	return 0;
}

static int print_path(const struct genl_attributes *a, void *context)
{
	(void)context;
	printf("path %u registration %u generation %" PRIu64 " local %s remote %s link %u flows %u "
	       "out %" PRIu64 " packets %" PRIu64 " octets in %" PRIu64 " packets %" PRIu64
	       " octets\n",
	       genl_u32(a->at[MTUN_A_PATH]), genl_u32(a->at[MTUN_A_REGISTRATION]),
	       genl_u64(a->at[MTUN_A_GENERATION]), text(genl_data(a->at[MTUN_A_LOCAL])),
	       text(genl_data(a->at[MTUN_A_REMOTE])), genl_u32(a->at[MTUN_A_LINK]),
	       genl_u32(a->at[MTUN_A_FLOWS]), genl_u64(a->at[MTUN_A_PACKETS]),
	       genl_u64(a->at[MTUN_A_OCTETS]), genl_u64(a->at[MTUN_A_IN_PACKETS]),
	       genl_u64(a->at[MTUN_A_IN_OCTETS]));
	return 0;
}

static int print_flow(const struct genl_attributes *a, void *context)
{
	const struct mtun_key *key = genl_data(a->at[MTUN_A_KEY]);

	(void)context;
	printf("%s %s > %s proto %u ports %u %u path %u ingress %u lasts %u generation %" PRIu64
	       " packets %" PRIu64 " octets %" PRIu64 " idle %u%s\n",
	       *(const uint8_t *)genl_data(a->at[MTUN_A_DIRECTION]) ? "in" : "out",
	       text(key->source), text(key->destination), key->protocol, ntohs(key->source_port),
	       ntohs(key->destination_port), genl_u32(a->at[MTUN_A_PATH]),
	       key->ingress, genl_u32(a->at[MTUN_A_LASTS]), genl_u64(a->at[MTUN_A_GENERATION]),
	       genl_u64(a->at[MTUN_A_PACKETS]), genl_u64(a->at[MTUN_A_OCTETS]), genl_u32(a->at[MTUN_A_IDLE]),
	       a->interrupted ? " interrupted" : "");
	return 0;
}

static int print_counters(const struct genl_attributes *a, void *context)
{
	const char *at = genl_data(a->at[MTUN_A_COUNTERS]);
	size_t i;

	(void)context;
	for (i = 0; i < __MTUN_REASON_COUNT; i++) {
		uint64_t value;

		memcpy(&value, at + i * sizeof(value), sizeof(value));
		printf("%s %" PRIu64 "\n", reasons[i], value);
	}
	return 0;
}

static int print_flushed(const struct genl_attributes *a, void *context)
{
	(void)context;
	printf("flushed %u\n", genl_u32(a->at[MTUN_A_FLOWS]));
	return 0;
}

static void put_flow(struct genl *genl, uint32_t ifindex, uint8_t command, uint16_t flags,
		     const struct words *words)
{
	genl_begin(genl, command, flags);
	genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
	if (words->direction >= 0)
		genl_put_u8(genl, MTUN_A_DIRECTION, (uint8_t)words->direction);
	if (command == MTUN_CMD_FLOW_FLUSH ? words->masked : true)
		genl_put(genl, MTUN_A_KEY, &words->key, sizeof(words->key));
	if (words->by_path)
		genl_put_u32(genl, MTUN_A_PATH, words->path);
	if (command == MTUN_CMD_FLOW_ADD) {
		genl_put_u64(genl, MTUN_A_GENERATION, words->generation);
		genl_put_u32(genl, MTUN_A_LASTS, words->lasts);
		genl_put_u32(genl, MTUN_A_LABEL, words->label);
	}
	if (command == MTUN_CMD_FLOW_FLUSH && words->masked)
		genl_put(genl, MTUN_A_MASK, &words->mask, sizeof(words->mask));
	if (command == MTUN_CMD_FLOW_FLUSH && words->by_registration)
		genl_put_u32(genl, MTUN_A_REGISTRATION, words->registration);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Acknowledged only at the end of each batch, as a daemon would. */
static int fill(struct genl *genl, uint32_t ifindex, struct words *words)
{
	double start = seconds();
	uint32_t i;
	int err = 0;

	words->direction = MTUN_DIRECTION_OUT;
	memcpy(words->key.source, "\x20\x01\x0d\xb8\xff", 5);
	memcpy(words->key.destination, "\x20\x01\x0d\xb8\xfe", 5);
	for (i = 0; i < words->count && !err; i++) {
		uint32_t host = htonl(i);
		bool last = i % 512 == 511 || i + 1 == words->count;

		memcpy(words->key.source + 12, &host, 4);
		put_flow(genl, ifindex, MTUN_CMD_FLOW_ADD, last ? NLM_F_ACK : 0, words);
		if (last)
			err = genl_talk(genl, NULL, NULL);
	}
	printf("filled %u in %.3f s, %.0f per second\n", i, seconds() - start,
	       i / (seconds() - start));
	return err;
}

/* Decides as the test's router would: out by the path given, in by the path it came. */
struct answering {
	struct genl *genl;
	uint32_t ifindex;
	struct words words;
	uint32_t answered;
};

static int answer_one(const struct genl_attributes *a, void *context)
{
	struct answering *answering = context;
	struct words words = answering->words;
	const uint8_t *packet = genl_data(a->at[MTUN_A_PACKET]);
	size_t length = genl_length(a->at[MTUN_A_PACKET]);
	uint8_t direction = *(const uint8_t *)genl_data(a->at[MTUN_A_DIRECTION]);

	if (a->command != MTUN_CMD_MISS)
		return 0;
	answering->answered++;
	if (direction == MTUN_DIRECTION_IN) {
		if (length < 80 || packet[6] != IPPROTO_IPV6)
			return 0;
		words.path = genl_u32(a->at[MTUN_A_PATH]);
		packet += 40;
		length -= 40;
	}
	words.direction = direction;
	words.by_path = true;
	memcpy(words.key.source, packet + 8, 16);
	memcpy(words.key.destination, packet + 24, 16);
	put_flow(answering->genl, answering->ifindex, MTUN_CMD_FLOW_ADD, 0, &words);
	genl_begin(answering->genl, MTUN_CMD_EXECUTE, 0);
	genl_put_u32(answering->genl, MTUN_A_IFINDEX, answering->ifindex);
	genl_put_u8(answering->genl, MTUN_A_DIRECTION, direction);
	genl_put_u32(answering->genl, MTUN_A_PATH, words.path);
	genl_put(answering->genl, MTUN_A_PACKET, packet, length);
	return genl_send(answering->genl);
}

static int answer(struct genl *genl, uint32_t ifindex, const struct words *words)
{
	struct answering answering = { .genl = genl, .ifindex = ifindex, .words = *words };
	int err;

	genl_begin(genl, MTUN_CMD_LISTEN, NLM_F_ACK);
	genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
	err = genl_talk(genl, NULL, NULL);
	if (err)
		return err;
	printf("listening\n");
	fflush(stdout);
	while (!words->count || answering.answered < words->count) {
		ssize_t length = recv(genl->fd, genl->in, GENL_BUFFER, 0);
		const struct nlmsghdr *message = (const void *)genl->in;

		if (length < 0 && errno != ENOBUFS)
			return -errno;
		for (; length > 0 && NLMSG_OK(message, (size_t)length);
		     message = NLMSG_NEXT(message, length)) {
			struct genl_attributes attributes;

			if (message->nlmsg_type != genl->family)
				continue;
			genl_parse(message, &attributes);
			answer_one(&attributes, &answering);
		}
	}
	return 0;
}

static int path_command(struct genl *genl, const char *verb, uint32_t ifindex, char **argv)
{
	struct words words;

	if (!strcmp(verb, "list")) {
		genl_begin(genl, MTUN_CMD_PATH_GET, NLM_F_DUMP);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		return genl_talk(genl, print_path, NULL);
	}
	genl_begin(genl, !strcmp(verb, "add") ? MTUN_CMD_PATH_ADD :
			 !strcmp(verb, "set") ? MTUN_CMD_PATH_UPDATE : MTUN_CMD_PATH_DELETE,
		   NLM_F_ACK);
	genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
	words = read_words(genl, argv);
	if (words.by_path)
		genl_put_u32(genl, MTUN_A_PATH, words.path);
	if (words.by_registration)
		genl_put_u32(genl, MTUN_A_REGISTRATION, words.registration);
	if (words.generation)
		genl_put_u64(genl, MTUN_A_GENERATION, words.generation);
	return genl_talk(genl, NULL, NULL);
}

static int flow_command(struct genl *genl, const char *verb, uint32_t ifindex, char **argv)
{
	struct words words;

	if (!strcmp(verb, "list")) {
		genl_begin(genl, MTUN_CMD_FLOW_GET, NLM_F_DUMP);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		return genl_talk(genl, print_flow, NULL);
	}
	words = read_words(genl, argv);
	put_flow(genl, ifindex,
		 !strcmp(verb, "add") ? MTUN_CMD_FLOW_ADD :
		 !strcmp(verb, "flush") ? MTUN_CMD_FLOW_FLUSH : MTUN_CMD_FLOW_DELETE,
		 !strcmp(verb, "take") ? NLM_F_ACK | NLM_F_ECHO : NLM_F_ACK, &words);
	if (!strcmp(verb, "take"))
		return genl_talk(genl, print_flow, NULL);
	return genl_talk(genl, print_flushed, NULL);
}

static int device_command(struct genl *genl, const char *noun, uint32_t ifindex, char **argv)
{
	struct words words;

	if (!strcmp(noun, "counters")) {
		genl_begin(genl, MTUN_CMD_COUNTERS_GET, NLM_F_ACK);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		return genl_talk(genl, print_counters, NULL);
	}
	if (!strcmp(noun, "device")) {
		genl_begin(genl, *argv ? MTUN_CMD_DEVICE_SET : MTUN_CMD_DEVICE_GET, NLM_F_ACK);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		read_words(genl, argv);
		return genl_talk(genl, print_device, NULL);
	}
	if (!strcmp(noun, "attach") || !strcmp(noun, "detach")) {
		genl_begin(genl, !strcmp(noun, "attach") ? MTUN_CMD_LINK_ATTACH :
							   MTUN_CMD_LINK_DETACH, NLM_F_ACK);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		read_words(genl, argv);
		return genl_talk(genl, NULL, NULL);
	}
	words = read_words(genl, argv);
	if (!strcmp(noun, "generation")) {
		genl_begin(genl, MTUN_CMD_GENERATION_SET, NLM_F_ACK);
		genl_put_u32(genl, MTUN_A_IFINDEX, ifindex);
		genl_put_u32(genl, MTUN_A_REGISTRATION, words.registration);
		genl_put_u64(genl, MTUN_A_GENERATION, words.generation);
		return genl_talk(genl, NULL, NULL);
	}
	if (!strcmp(noun, "fill")) {
		words.by_path = true;
		return fill(genl, ifindex, &words);
	}
	if (!strcmp(noun, "answer"))
		return answer(genl, ifindex, &words);
	if (!strcmp(noun, "malformed"))
		return noise_messages(genl, ifindex, words.seed, words.count);
	fail("unknown command", noun);
}

int main(int argc, char **argv)
{
	struct genl genl;
	int err;

	if (argc < 3)
		fail("usage", "see the head of mtunctl.c");
	if (!strcmp(argv[1], "noise")) {
		err = noise_packets(argv + 2);
		if (err)
			fail("noise", strerror(-err));
		return 0;
	}
	err = genl_open(&genl);
	if (!err && (!strcmp(argv[1], "path") || !strcmp(argv[1], "flow"))) {
		if (argc < 4)
			fail("usage", "see the head of mtunctl.c");
		err = (argv[1][0] == 'p' ? path_command : flow_command)(&genl, argv[2],
									device(argv[3]), argv + 4);
	} else if (!err) {
		err = device_command(&genl, argv[1], device(argv[2]), argv + 3);
	}
	if (err)
		fprintf(stderr, "mtunctl: %s\n", strerror(-err));
	return err ? 1 : 0;
}

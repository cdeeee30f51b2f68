/* SPDX-License-Identifier: GPL-2.0-only */
/* What nobody honest sends: over netlink, and over links. */
#ifndef MTUN_SELFTEST_NOISE_H
#define MTUN_SELFTEST_NOISE_H

#include "genl.h"

/* Sends `count` messages to a device that are nearly right. */
int noise_messages(struct genl *genl, uint32_t ifindex, uint32_t seed, uint32_t count);

/*
 * noise DEV MAC|- SEED COUNT FROM|- TO|- SOURCE DESTINATION: sends packets that are nearly right,
 * inner ones between SOURCE and DESTINATION, wrapped between FROM and TO if these are given.
 */
int noise_packets(char **argv);

#endif

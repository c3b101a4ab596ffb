// SPDX-License-Identifier: MIT
/* How often calls of one kind ended how. */
#define _GNU_SOURCE
#include "commands.h"

void tally_count(struct tally *tally, long result)
{
	for (unsigned i = 0; i < 8; i++)
		if (!tally->seen[i].count || tally->seen[i].result == result) {
			tally->seen[i].result = result;
			tally->seen[i].count++;
			return;
		}
}

void tally_say(const struct tally *tally, const char *of)
{
	for (unsigned i = 0; i < 8 && tally->seen[i].count; i++)
		say("%s%s=%u", of, tally->seen[i].result ? strerrorname_np(-tally->seen[i].result) : "OK", tally->seen[i].count);
}

// SPDX-License-Identifier: MIT
/* Bytes that tell where they belong: `pattern()` of each offset. */
#include "client.h"

void pattern_write(volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed)
{
	volatile uint32_t *words = memory;

	for (uint64_t i = 0; i < length / 4; i++)
		words[i] = pattern(offset + 4 * i, seed);
}

long pattern_check(const volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed)
{
	const volatile uint32_t *words = memory;
	uint64_t wrong = 0, first = 0;

	for (uint64_t i = 0; i < length / 4; i++)
		if (words[i] != pattern(offset + 4 * i, seed) && !wrong++)
			first = i;
	if (!wrong)
		return 0;
	say("wrong=%llu first=%#llx found=%#x expected=%#x", (unsigned long long)wrong, (unsigned long long)(4 * first),
	    words[first], pattern(offset + 4 * first, seed));
	return -EILSEQ;
}

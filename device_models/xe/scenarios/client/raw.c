// SPDX-License-Identifier: MIT
/* Calls as a grammar on the host makes them: any request with any bytes, of which some come from earlier calls. */
#define _GNU_SOURCE
#include "client.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#define SLOTS 64
#define ARENA_PAGES 16
#define MOST_BYTES 512

/* What calls gave: handles, and descriptors. */
static uint64_t slots[SLOTS];

/* Memory that arguments point into; it is where it is in every process, so that a sequence says all there is to say. */
static uint8_t *arena(void)
{
	static uint8_t *memory;

	if (!memory) {
		memory = mmap((void *)0x7e0000000000, ARENA_PAGES * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (memory == MAP_FAILED)
			abort();
	}
	return memory;
}

static uint64_t *slot_of(const char *word)
{
	unsigned number = strtoul(word, NULL, 10);

	return number < SLOTS ? &slots[number] : NULL;
}

/* "1.z3.s5.q7e0000001000": dwords in hex, zeros, the low half of a slot, qwords in hex. How many bytes, or -EINVAL. */
static long encoded(const char *text, uint8_t *bytes, size_t room)
{
	size_t used = 0;

	while (*text) {
		uint64_t value = 0;
		unsigned width = 4, repeat = 1;
		char *end;

		if (*text == 'z') {
			repeat = strtoul(text + 1, &end, 10);
		} else if (*text == 's') {
			unsigned number = strtoul(text + 1, &end, 10);

			value = number < SLOTS ? slots[number] : 0;
		} else if (*text == 'q') {
			value = strtoull(text + 1, &end, 16);
			width = 8;
		} else {
			value = strtoull(text, &end, 16);
		}
		if (end == text || (*end && *end != '.'))
			return -EINVAL;
		text = *end ? end + 1 : end;
		while (repeat--) {
			if (used + width > room)
				return -E2BIG;
			memcpy(bytes + used, &value, width);
			used += width;
		}
	}
	return used;
}

long raw_keep(const char *slot, int fd)
{
	uint64_t *kept = slot_of(slot);

	if (!kept)
		return -EINVAL;
	*kept = fd;
	return 0;
}

long raw_poke(uint64_t offset, const char *data)
{
	if (offset >= ARENA_PAGES * PAGE)
		return -EINVAL;
	long length = encoded(data, arena() + offset, ARENA_PAGES * PAGE - offset);

	return length < 0 ? length : 0;
}

long raw_ioctl(const char *descriptor, uint64_t request, const char *data, const char *keep, const char *from)
{
	uint8_t bytes[MOST_BYTES + 8] = { 0 };
	uint64_t *fd = slot_of(descriptor), *kept = keep ? slot_of(keep) : NULL;
	long length = encoded(data, bytes, MOST_BYTES);

	arena();
	if (!fd || length < 0 || (keep && !kept))
		return length < 0 ? length : -EINVAL;
	long result = call(*fd, request, bytes);

	if (result >= 0 && kept) {
		unsigned at = strtoul(from, NULL, 10);

		if (!strcmp(from, "result"))
			*kept = result;
		else if (at + 4 <= MOST_BYTES)
			*kept = *(uint32_t *)(bytes + at);
		say("kept=%#llx", (unsigned long long)*kept);
	}
	return result < 0 ? result : 0;
}

long raw_close(const char *slot)
{
	uint64_t *fd = slot_of(slot);

	/* Those of the program itself stay. */
	if (!fd || *fd < 3)
		return -EBADF;
	long result = close(*fd) ? -errno : 0;

	*fd = 0;
	return result;
}

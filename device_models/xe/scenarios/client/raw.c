// SPDX-License-Identifier: MIT
/* Calls as a grammar on the host makes them: any request with any bytes, of which some come from earlier calls. */
#define _GNU_SOURCE
#include "client.h"

#include <ctype.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define SLOTS 64
#define ARENA_PAGES 16
#define MOST_BYTES 512

/* What calls gave: handles, and descriptors. As a handle an empty one is 0, which is none. */
static struct slot {
	uint64_t value;
	bool filled;
} slots[SLOTS];

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

/* A number of digits alone, at most `most`; where it ends, or NULL. */
static const char *parsed(const char *text, int base, uint64_t most, uint64_t *value)
{
	char *end;

	if (!isxdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	*value = strtoull(text, &end, base);
	return end == text || errno || *value > most ? NULL : end;
}

static struct slot *slot_of(const char *word)
{
	uint64_t number;
	const char *end = parsed(word, 10, SLOTS - 1, &number);

	return end && !*end ? &slots[number] : NULL;
}

/* What a call is made on: an empty slot is no descriptor, and not that of the number 0. */
static int descriptor_of(const struct slot *slot)
{
	return slot->filled && slot->value <= INT_MAX ? (int)slot->value : -1;
}

/* "1.z3.s5.q7e0000001000": dwords in hex, zeros, the low half of a slot, qwords in hex. How many bytes, or -EINVAL. */
static long encoded(const char *text, uint8_t *bytes, size_t room)
{
	size_t used = 0;

	while (*text) {
		uint64_t value = 0, repeat = 1;
		unsigned width = 4;
		const char *end;

		if (*text == 'z') {
			end = parsed(text + 1, 10, UINT32_MAX, &repeat);
		} else if (*text == 's') {
			end = parsed(text + 1, 10, SLOTS - 1, &value);
			value = end ? slots[value].value : 0;
		} else if (*text == 'q') {
			end = parsed(text + 1, 16, UINT64_MAX, &value);
			width = 8;
		} else {
			end = parsed(text, 16, UINT32_MAX, &value);
		}
		if (!end || (*end && *end != '.'))
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
	struct slot *kept = slot_of(slot);

	if (!kept)
		return -EINVAL;
	*kept = (struct slot){ fd, true };
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
	struct slot *slot = slot_of(descriptor), *kept = keep ? slot_of(keep) : NULL;
	long length = encoded(data, bytes, MOST_BYTES);
	bool whole = keep && !strcmp(from, "result");
	uint64_t at = 0;

	arena();
	if (length < 0)
		return length;
	if (!slot || (keep && !kept))
		return -EINVAL;
	if (keep && !whole) {
		const char *end = parsed(from, 10, MOST_BYTES - 4, &at);

		if (!end || *end)
			return -EINVAL;
	}
	long result = call(descriptor_of(slot), request, bytes);

	if (result >= 0 && kept) {
		uint32_t dword;

		memcpy(&dword, bytes + at, sizeof(dword));
		*kept = (struct slot){ whole ? (uint64_t)result : dword, true };
		say("kept=%#llx", (unsigned long long)kept->value);
	}
	return result < 0 ? result : 0;
}

long raw_close(const char *slot)
{
	struct slot *named = slot_of(slot);
	int fd = named ? descriptor_of(named) : -1;

	/* Those of the program itself stay. */
	if (fd < 3)
		return -EBADF;
	long result = close(fd) ? -errno : 0;

	*named = (struct slot){};
	return result;
}

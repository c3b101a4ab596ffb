// SPDX-License-Identifier: MIT
/*
 * Where a buffer's pages are in the BAR that shows VRAM. No interface of xe tells; virtio-gpu learns it inside the kernel, from the dma-buf
 * that it imports (`virtgpu_prime.c`). Here each page is marked, and the BAR is searched for the marks.
 */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MARK 0x786570616765ull /* "egapex" */

long pages_find(struct object *bo, const char *address)
{
	uint64_t count = bo->size / PAGE, found = 0, *where = calloc(count, sizeof(*where)), salt = now_ns() << 24;
	char path[128];
	struct stat status;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", address);
	int file = open(path, O_RDWR | O_CLOEXEC);

	if (file < 0 || fstat(file, &status) < 0)
		return -errno;
	volatile uint8_t *bar = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
	int error = errno;

	close(file);
	if (bar == MAP_FAILED)
		return -error;
	for (uint64_t i = 0; i < count; i++) {
		volatile uint64_t *page = (volatile uint64_t *)(bo->map + i * PAGE);

		page[0] = MARK ^ salt;
		page[1] = i;
		where[i] = ~0ull;
	}
	__sync_synchronize();
	for (uint64_t offset = 0; offset < (uint64_t)status.st_size && found < count; offset += PAGE) {
		const volatile uint64_t *page = (const volatile uint64_t *)(bar + offset);

		if (page[0] != (MARK ^ salt) || page[1] >= count || where[page[1]] != ~0ull)
			continue;
		where[page[1]] = offset;
		found++;
	}
	munmap((void *)bar, status.st_size);
	char ranges[NOTES - 64] = "";
	unsigned length = 0, pieces = 0;

	for (uint64_t i = 0, start = 0; found == count && i < count && length < sizeof(ranges); i++) {
		if (i + 1 < count && where[i + 1] == where[i] + PAGE)
			continue;
		length += snprintf(ranges + length, sizeof(ranges) - length, "%s%#llx+%#llx", length ? "," : "",
				   (unsigned long long)where[start], (unsigned long long)((i + 1 - start) * PAGE));
		start = i + 1;
		pieces++;
	}
	free(where);
	if (found != count) {
		say("found=%llu of=%llu", (unsigned long long)found, (unsigned long long)count);
		return -ENOENT;
	}
	if (length >= sizeof(ranges))
		return -E2BIG;
	say("pieces=%u ranges=%s", pieces, ranges);
	return 0;
}

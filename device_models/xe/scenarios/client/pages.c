// SPDX-License-Identifier: MIT
/*
 * Where memory's pages are in the BAR that shows VRAM. No interface of xe tells; virtio-gpu learns it inside the kernel, from the dma-buf
 * that it imports (`virtgpu_prime.c`). Here each page is marked for a moment, and the BAR is searched for the marks.
 */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MARK 0x786570616765ull /* "egapex" */

struct page {
	uint64_t where, kept[2]; /* in the BAR; what is under the mark */
};

static volatile uint64_t *mark(uint8_t *map, uint64_t page)
{
	return (volatile uint64_t *)(map + page * PAGE);
}

/* How many of the pages were found. */
static uint64_t search(uint8_t *map, struct page *pages, uint64_t count, const volatile uint8_t *bar, uint64_t size)
{
	uint64_t found = 0, word = MARK ^ now_ns() << 24;

	for (uint64_t i = 0; i < count; i++) {
		volatile uint64_t *page = mark(map, i);

		pages[i] = (struct page){ ~0ull, { page[0], page[1] } };
		page[0] = word;
		page[1] = i;
	}
	__sync_synchronize();
	for (uint64_t offset = 0; offset < size && found < count; offset += PAGE) {
		const volatile uint64_t *page = (const volatile uint64_t *)(bar + offset);

		if (page[0] != word || page[1] >= count || pages[page[1]].where != ~0ull)
			continue;
		pages[page[1]].where = offset;
		found++;
	}
	for (uint64_t i = 0; i < count; i++) {
		mark(map, i)[0] = pages[i].kept[0];
		mark(map, i)[1] = pages[i].kept[1];
	}
	return found;
}

static long list(const struct page *pages, uint64_t count, char *ranges, size_t length)
{
	size_t used = 0;
	long pieces = 0;

	ranges[0] = 0;
	for (uint64_t i = 0, start = 0; i < count; i++) {
		if (i + 1 < count && pages[i + 1].where == pages[i].where + PAGE)
			continue;
		used += snprintf(ranges + used, length - used, "%s%#llx+%#llx", pieces ? "," : "",
				 (unsigned long long)pages[start].where, (unsigned long long)((i + 1 - start) * PAGE));
		if (used >= length)
			return -E2BIG;
		start = i + 1;
		pieces++;
	}
	return pieces;
}

long pages_find(uint8_t *map, uint64_t size, const char *address, char *ranges, size_t length)
{
	uint64_t count = size / PAGE;
	char path[128];
	struct stat status;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", address);
	int file = open(path, O_RDWR | O_CLOEXEC);

	if (file < 0)
		return -errno;
	if (fstat(file, &status) < 0 || !count || size % PAGE) {
		close(file);
		return -EINVAL;
	}
	uint8_t *bar = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
	long result = -errno;

	close(file);
	if (bar == MAP_FAILED)
		return result;
	struct page *pages = calloc(count, sizeof(*pages));

	result = pages && search(map, pages, count, bar, status.st_size) == count ? list(pages, count, ranges, length) : -ENOENT;
	free(pages);
	munmap(bar, status.st_size);
	return result;
}

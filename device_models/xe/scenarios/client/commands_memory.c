// SPDX-License-Identifier: MIT
/* Commands on memory that this process has mapped: buffers, and views of dma-bufs. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <sys/mman.h>

static bool mapped(struct object *bo, uint64_t at, uint64_t length)
{
	return bo->map && within(bo->size, at, length);
}

long do_memory(char **w)
{
	return svm_memory(object_create(w[0], BO), to_number(w[1]));
}

/* where BUFFER: its virtual address */
long do_where(char **w)
{
	WANT(bo, w[0], BO);
	say("va=%#llx", (unsigned long long)bo->va);
	return 0;
}

/* verify BUFFER AT OFFSET LENGTH SEED: bytes from AT on are those of the BAR's OFFSET */
long do_verify(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, to_number(w[1]), to_number(w[3])))
		return -ERANGE;
	return pattern_check(bo->map + to_number(w[1]), to_number(w[2]), to_number(w[3]), to_number(w[4]));
}

long do_paint(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, to_number(w[1]), to_number(w[3])))
		return -ERANGE;
	pattern_write(bo->map + to_number(w[1]), to_number(w[2]), to_number(w[3]), to_number(w[4]));
	return 0;
}

/* holds BUFFER AT LENGTH WORD: all of it is that dword */
long do_holds(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, to_number(w[1]), to_number(w[2])))
		return -ERANGE;
	const uint32_t *words = (const uint32_t *)(bo->map + to_number(w[1]));

	for (uint64_t i = 0; i < to_number(w[2]) / 4; i++)
		if (words[i] != (uint32_t)to_number(w[3])) {
			say("first=%#llx found=%#x", (unsigned long long)(4 * i), words[i]);
			return -EILSEQ;
		}
	return 0;
}

long do_print(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, to_number(w[1]), 1))
		return -ERANGE;
	uint64_t left = bo->size - to_number(w[1]);

	say("text=%.*s", left < 200 ? (int)left : 200, (const char *)bo->map + to_number(w[1]));
	return 0;
}

long do_mmap(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	void *map = mmap(NULL, dmabuf->size, PROT_READ, MAP_SHARED, dmabuf->fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	munmap(map, dmabuf->size);
	return 0;
}

/* view DMABUF NAME: a mapping of it, which lives on without it; a buffer for `verify` and `paint` */
long do_view(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	struct object made = {};
	long result = view_map(dmabuf->fd, dmabuf->size, &made);

	if (result == 0) {
		struct object *view = object_create(w[1], BO);

		view->map = made.map;
		view->size = made.size;
	}
	return result;
}

/* touch VIEW AT: reads a dword of a mapping that may have been revoked */
long do_touch(char **w)
{
	WANT(view, w[0], BO);
	if (!mapped(view, to_number(w[1]), 4))
		return -ERANGE;
	uint32_t word = 0;
	long result = view_touch(view, to_number(w[1]), &word);

	if (result == 0)
		say("value=%#x", word);
	return result;
}

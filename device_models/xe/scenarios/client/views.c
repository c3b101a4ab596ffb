// SPDX-License-Identifier: MIT
/* Dma-bufs as the processor maps them: an access of a mapping whose buffer was revoked ends in SIGBUS, which is caught here. */
#define _GNU_SOURCE
#include "client.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static __thread sigjmp_buf refused;
static __thread volatile sig_atomic_t touching;

static void on_bus_error(int signal)
{
	if (touching)
		siglongjmp(refused, 1);
	/* Of somebody else: ends the process, as without this handler. */
	struct sigaction usual = { .sa_handler = SIG_DFL };

	sigaction(signal, &usual, NULL);
	raise(signal);
}

long view_map(int dmabuf, uint64_t size, struct object *view)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, 0);

	if (map == MAP_FAILED)
		return -errno;
	view->map = map;
	view->size = size;
	return 0;
}

long view_touch(struct object *view, uint64_t at, uint32_t *word)
{
	struct sigaction caught = { .sa_handler = on_bus_error }, before;

	sigaction(SIGBUS, &caught, &before);
	touching = 1;
	/* The mask is saved: the handler is left by a jump. */
	bool reached = !sigsetjmp(refused, 1);

	if (reached)
		*word = *(volatile uint32_t *)(view->map + at);
	touching = 0;
	sigaction(SIGBUS, &before, NULL);
	return reached ? 0 : -EFAULT;
}

// SPDX-License-Identifier: MIT
/* Calls that fail one after the other, by the kernel's fault injection (Documentation/fault-injection). */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <fcntl.h>

static bool fail_nth(unsigned n)
{
	char text[16];
	int file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ssize_t done = file < 0 ? -1 : write(file, text, snprintf(text, sizeof(text), "%u", n));

	if (file >= 0)
		close(file);
	return done > 0;
}

/* Whether the n-th call that can be made to fail was reached; ends the injection. */
static bool failed_nth(void)
{
	char text[16] = "";
	int file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	bool reached = file >= 0 && read(file, text, sizeof(text) - 1) > 0 && !atoi(text);

	if (file >= 0)
		close(file);
	fail_nth(0);
	return reached;
}

/* fail-each import|bind GPU DMABUF VA: the first call within that can fail does, then the second, and so on, to the last */
long do_fail_each(char **w)
{
	WANT(gpu, w[1], GPU);
	WANT(dmabuf, w[2], DMABUF);
	struct tally results = {};
	bool imports = !strcmp(w[0], "import"), reached = true;
	unsigned n;

	for (n = 1; reached && n < 500; n++) {
		struct object bo = {};
		long result = 0;

		if (!imports && (result = gpu_import(gpu, dmabuf->fd, &bo)))
			return result;
		if (!fail_nth(n))
			return -ENOENT;
		result = imports ? gpu_import(gpu, dmabuf->fd, &bo) : gpu_bind(&bo, to_number(w[3]), 0, bo.size, 2);
		reached = failed_nth();
		if (reached)
			tally_count(&results, result);
		notes[0] = 0;
		if (!imports && result == 0)
			gpu_unbind(gpu, to_number(w[3]), bo.size);
		if (bo.handle)
			gpu_close_handle(&bo);
	}
	say("places=%u", n - 2);
	tally_say(&results, "");
	return 0;
}

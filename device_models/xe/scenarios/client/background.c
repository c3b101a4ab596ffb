// SPDX-License-Identifier: MIT
/* Commands that run in threads of their own, and those that go on until they are stopped. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <pthread.h>

/* A command that runs in a thread of its own. */
struct job {
	char name[32], command[MOST_LINE], notes[NOTES];
	pthread_t thread;
	long result;
	volatile bool done, stop, used;
};

static struct job jobs[16];
static __thread struct job *current;

/* loop copy|kernel ...: the command until it is stopped; how often it ended how */
long do_loop(char **w)
{
	bool kernel = !strcmp(w[0], "kernel");
	struct tally tally = {};

	if (!current || !w[kernel ? 6 : 4] || w[kernel ? 7 : 5] || (!kernel && strcmp(w[0], "copy")))
		return -EINVAL;
	WANT(gpu, w[1], GPU);
	while (!current->stop) {
		uint64_t taken;
		long result = kernel ? gpu_kernel(gpu, w[2], to_number(w[3]), to_number(w[4]), to_number(w[5]), to_number(w[6])) :
				       gpu_copy(gpu, to_number(w[2]), to_number(w[3]), to_number(w[4]), &taken);

		tally_count(&tally, result);
		if (result < 0)
			usleep(1000);
	}
	tally_say(&tally, "");
	return 0;
}

/* cycle GPU DMABUF VA: import, bind, unbind, close, until stopped */
long do_cycle(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(dmabuf, w[1], DMABUF);
	struct tally imports = {}, binds = {}, unbinds = {}, closes = {};

	if (!current)
		return -EINVAL;
	while (!current->stop) {
		struct object bo = {};
		long result = gpu_import(gpu, dmabuf->fd, &bo);

		tally_count(&imports, result);
		notes[0] = 0;
		if (result < 0)
			continue;
		result = gpu_bind(&bo, to_number(w[2]), 0, bo.size, 2);
		tally_count(&binds, result);
		if (result == 0)
			tally_count(&unbinds, gpu_unbind(gpu, to_number(w[2]), bo.size));
		tally_count(&closes, gpu_close_handle(&bo));
	}
	tally_say(&imports, "import_");
	tally_say(&binds, "bind_");
	tally_say(&unbinds, "unbind_");
	tally_say(&closes, "close_");
	return 0;
}

/* again COMMAND...: until stopped; how often it ended how */
long do_again(char **w)
{
	struct tally tally = {};
	unsigned length = 0;

	if (!current)
		return -EINVAL;
	while (w[length])
		length++;
	while (!current->stop) {
		tally_count(&tally, run_words(w, length));
		notes[0] = 0;
	}
	tally_say(&tally, "");
	return 0;
}

/* busy GPU: the same, until stopped or refused */
long do_busy(char **w)
{
	WANT(gpu, w[0], GPU);
	unsigned jobs = 0;
	uint64_t gts = 0;
	long result = 0;

	if (!current)
		return -EINVAL;
	while (!current->stop && result == 0)
		result = gpu_engines(gpu, 1, &jobs, &gts);
	say("jobs=%u", jobs);
	return result;
}

static void *run_job(void *argument)
{
	struct job *job = argument;
	char line[sizeof(job->command)], *words[WORDS + 1];

	current = job;
	strcpy(line, job->command);
	uint64_t started = now_ns();

	job->result = run_words(words, split(line, words));
	say("us=%llu", (unsigned long long)((now_ns() - started) / 1000));
	memcpy(job->notes, notes, NOTES);
	__atomic_store_n(&job->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static struct job *find_job(const char *name)
{
	for (struct job *job = jobs; job < jobs + 16; job++)
		if (job->used && !strcmp(job->name, name))
			return job;
	return NULL;
}

long do_spawn(char **w)
{
	for (struct job *job = jobs; job < jobs + 16; job++) {
		if (job->used && strcmp(job->name, w[0]))
			continue;
		*job = (struct job){};
		snprintf(job->name, sizeof(job->name), "%s", w[0]);
		if (!join_words(job->command, sizeof(job->command), w + 1))
			return -E2BIG;
		int failed = pthread_create(&job->thread, NULL, run_job, job);

		job->used = !failed;
		return -failed;
	}
	return -ENOSPC;
}

/* The result of the job's command, or -ETIME while it runs. */
long do_join(char **w)
{
	struct job *job = find_job(w[0]);
	uint64_t end = now_ns() + to_number(w[1]) * 1000000;

	if (!job)
		return -ENXIO;
	while (!__atomic_load_n(&job->done, __ATOMIC_ACQUIRE)) {
		if (now_ns() > end)
			return -ETIME;
		usleep(1000);
	}
	say("%s", job->notes);
	return job->result;
}

long do_stop(char **w)
{
	struct job *job = find_job(w[0]);

	if (!job)
		return -ENXIO;
	job->stop = true;
	return 0;
}

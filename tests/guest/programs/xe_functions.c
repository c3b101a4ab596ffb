// SPDX-License-Identifier: MIT
/*
 * Work on several functions of a card at once: the PF, VFs, or both; a process for each.
 *
 *	xe-functions jobs FUNCTION...           jobs on every engine of every function, all results verified
 *	xe-functions spin SECONDS FUNCTION...   endless batches on the copy engine; how far each function came
 *	xe-functions hold FUNCTION FILE         one such batch that ends, and is verified, when FILE appears
 *	xe-functions hog FUNCTION               one that is never preempted and never ends; until its queue is killed
 *	xe-functions shares SECONDS VFS PF      percent of its copy engine's time that PF and VFs have, by the PF's PMU
 *
 * FUNCTION is a PCI address.  Prints a line per function; exit code 0 when all went well.
 */
#define _GNU_SOURCE
#include "xe/batch.h"
#include "xe_alone.h"

#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 3
#define BLOCK KIB(64)

/* A pattern that tells function, engine, round and place apart. */
static uint32_t pattern(unsigned function, unsigned engine, unsigned round, unsigned place)
{
	return (function << 24 | engine << 20 | round << 16) ^ place * 2654435761u;
}

static void job(struct space *space, unsigned function, unsigned index, unsigned round)
{
	bool copies = space->engine.engine_class == DRM_XE_ENGINE_CLASS_COPY;

	for (unsigned i = 0; i < 256; i++)
		data(space, 0)[i] = pattern(function, index, round, i), data(space, 1024)[i] = 0;
	for (unsigned i = 0; i < 8; i++)
		mi_store_dword(&space->batch, data_va(space, 2048 + i), pattern(function, index, round, 1000 + i));
	if (copies)
		mem_copy(&space->batch, data_va(space, 1024), data_va(space, 0), 1024);
	else
		for (unsigned i = 0; i < 256; i += 16)
			mi_copy_mem_mem(&space->batch, data_va(space, 1024 + i), data_va(space, i));
	space_run(space);
	for (unsigned i = 0; i < 8; i++)
		expect_eq(data(space, 2048)[i], pattern(function, index, round, 1000 + i));
	for (unsigned i = 0; i < 256; i += copies ? 1 : 16)
		expect_eq(data(space, 1024)[i], pattern(function, index, round, i));
}

/* Jobs on all engines, in VRAM and in system memory, while every function keeps a copy engine busy. */
static void run_jobs(unsigned function, pthread_barrier_t *barrier)
{
	int fd = xe_open();
	uint32_t placements[] = { vram(fd), system_memory(fd) };
	struct spinner busy = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	unsigned index = 0, jobs = 0;

	pthread_barrier_wait(barrier);
	for (unsigned p = 0; p < COUNT(placements); p++) {
		for_each_engine(fd, e) {
			struct space space = space_on(fd, *e, placements[p], 0);

			for (unsigned round = 0; round < ROUNDS; round++, jobs++)
				job(&space, function, index, round);
			index++;
		}
	}
	if (syncobj_is_signalled(fd, busy.done))
		FAIL("a job without end has ended: it waited for its turn too long; kernels up to 6.18 give VFs no execution quantum");
	pthread_barrier_wait(barrier);
	spinner_end(&busy);
	printf("%s ok: %u jobs\n", device_pci, jobs);
}

static void run_spin(pthread_barrier_t *barrier, double seconds)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t before;

	pthread_barrier_wait(barrier);
	before = *spinner.rounds;
	usleep(seconds * 1e6);
	printf("%s rounds %u\n", device_pci, *spinner.rounds - before);
	fflush(stdout);
	pthread_barrier_wait(barrier);
	spinner_end(&spinner);
}

static void run_hold(const char *file)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct space after = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t rounds;

	printf("%s running\n", device_pci);
	fflush(stdout);
	while (access(file, F_OK))
		usleep(20000);
	spinner_wait_progress(&spinner);
	rounds = *spinner.rounds;
	spinner_end(&spinner);
	expect_le(rounds, *spinner.rounds);
	job(&after, 1, 0, 0);
	printf("%s finished after %u rounds\n", device_pci, *spinner.rounds);
}

static void run_hog(void)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct spinner spinner = spinner_start_in(space, false);

	spinner_wait_progress(&spinner);
	printf("%s running\n", device_pci);
	fflush(stdout);
	wait_until(is_banned(fd, space.queue), PATIENCE);
	printf("%s killed\n", device_pci);
}

/* xe_pmu.c: event 2 counts ticks with work, event 3 all ticks; the function is in bits 59:44, the class in 27:20. */
static int pmu_open(unsigned type, unsigned event, unsigned function)
{
	struct perf_event_attr attr = { .type = type, .size = sizeof(attr) };
	int fd;

	attr.config = event | DRM_XE_ENGINE_CLASS_COPY << 20 | (uint64_t)function << 44;
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
	if (fd < 0)
		FAIL("perf_event_open of event %u of function %u: %s", event, function, strerror(errno));
	return fd;
}

static uint64_t pmu_read(int fd)
{
	uint64_t value = 0;

	if (read(fd, &value, sizeof(value)) != sizeof(value))
		FAIL("read of an event: %s", strerror(errno));
	return value;
}

static void run_shares(double seconds, unsigned vfs)
{
	int active[vfs + 1], total[vfs + 1];
	uint64_t before[vfs + 1], all[vfs + 1];
	char path[96], name[16];
	unsigned type = 0;
	FILE *file;

	snprintf(name, sizeof(name), "%s", device_pci);
	for (char *c = name; *c; c++)
		if (*c == ':')
			*c = '_';
	snprintf(path, sizeof(path), "/sys/bus/event_source/devices/xe_%s/type", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%u", &type) != 1)
		FAIL("no number in %s", path);
	fclose(file);
	for (unsigned n = 0; n <= vfs; n++)
		active[n] = pmu_open(type, 2, n), total[n] = pmu_open(type, 3, n);
	for (unsigned n = 0; n <= vfs; n++)
		before[n] = pmu_read(active[n]), all[n] = pmu_read(total[n]);
	usleep(seconds * 1e6);
	for (unsigned n = 0; n <= vfs; n++) {
		uint64_t ran = pmu_read(active[n]) - before[n], passed = pmu_read(total[n]) - all[n];

		printf("function %u had %u percent\n", n, (unsigned)(passed ? ran * 100 / passed : 0));
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: xe-functions jobs FUNCTION... | spin SECONDS FUNCTION... | hold FUNCTION FILE"
			" | hog FUNCTION | shares SECONDS VFS PF\n");
	return 2;
}

int main(int argc, char **argv)
{
	bool jobs = argc > 2 && !strcmp(argv[1], "jobs"), spin = argc > 3 && !strcmp(argv[1], "spin");
	bool hold = argc == 4 && !strcmp(argv[1], "hold"), hog = argc == 3 && !strcmp(argv[1], "hog");
	bool shares = argc == 5 && !strcmp(argv[1], "shares");
	int first = spin ? 3 : 2, count = argc - first, failed = 0;
	pthread_barrierattr_t shared;
	pthread_barrier_t *barrier;

	if (!jobs && !spin && !hold && !hog && !shares)
		return usage();
	if (hog) {
		choose_function(argv[2]);
		run_hog();
		return 0;
	}
	if (shares) {
		choose_function(argv[4]);
		run_shares(strtod(argv[2], NULL), strtoul(argv[3], NULL, 0));
		return 0;
	}
	if (hold) {
		choose_function(argv[2]);
		run_hold(argv[3]);
		return 0;
	}
	barrier = mmap(NULL, sizeof(*barrier), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	if (barrier == MAP_FAILED || pthread_barrier_init(barrier, &shared, count))
		return 2;
	/* One that fails would leave the others waiting: they go with it. */
	setpgid(0, 0);
	for (int i = 0; i < count; i++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		choose_function(argv[first + i]);
		if (jobs)
			run_jobs(i, barrier);
		else
			run_spin(barrier, strtod(argv[2], NULL));
		fflush(stdout);
		_exit(0);
	}
	for (int i = 0; i < count; i++) {
		int status;

		wait(&status);
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			failed = 1;
			break;
		}
	}
	return failed;
}

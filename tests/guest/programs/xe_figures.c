// SPDX-License-Identifier: MIT
/*
 * Times as a guest sees them, of the function with a PCI address:
 *
 *	xe-figures FUNCTION
 *
 * Prints "name value unit" lines: a register's read from user space, idle and while the copy engine copies without a
 * pause; a job from submission to fence; copies of 64 MiB.  Reading registers beside the driver takes a kernel that
 * is booted with iomem=relaxed.
 */
#define _GNU_SOURCE
#include "xe/batch.h"
#include "xe_alone.h"

#include <fcntl.h>
#include <sys/mman.h>

#define READS 4000
#define JOBS 300
#define BLOCK MIB(64)
#define SOURCE_VA 0x10000000ull
#define TARGET_VA 0x20000000ull
#define GMD_ID 0xd8c

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static double median_us(uint64_t *times, unsigned count)
{
	qsort(times, count, sizeof(*times), compare);
	return times[count / 2] / 1000.0;
}

static double register_read_us(const volatile uint32_t *registers)
{
	static uint64_t times[READS];

	for (unsigned i = 0; i < READS; i++) {
		uint64_t start = now();

		(void)registers[GMD_ID / 4];
		times[i] = now() - start;
	}
	return median_us(times, READS);
}

/* A copy of the whole block, in commands of 16 MiB, `times` times. */
static void emit_copies(struct batch *b, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		for (uint64_t at = 0; at < BLOCK; at += MIB(16))
			mem_copy_pages(b, TARGET_VA + at, SOURCE_VA + at, MIB(16) / 256);
}

static double copy_seconds(struct space *space)
{
	double best = 1e9;

	for (unsigned round = 0; round < 5; round++) {
		emit_copies(&space->batch, 4);
		uint64_t start = now();
		space_run(space);
		double seconds = (now() - start) / 4e9;
		best = seconds < best ? seconds : best;
	}
	return best;
}

static void registers(int fd)
{
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct bo source = bo_create(fd, 0, BLOCK, vram(fd)), target = bo_create(fd, 0, BLOCK, vram(fd));
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", device_pci);
	int file = open(path, O_RDWR | O_SYNC);
	const volatile uint32_t *window = mmap(NULL, MIB(1), PROT_READ, MAP_SHARED, file, 0);
	if (file < 0 || window == MAP_FAILED)
		FAIL("%s: %s", path, strerror(errno));
	bind(fd, space.vm, &source, SOURCE_VA);
	bind(fd, space.vm, &target, TARGET_VA);
	printf("register_read_idle %.1f us\n", register_read_us(window));
	/* As many copies as the batch holds: some ten seconds. */
	emit_copies(&space.batch, 200);
	uint32_t done = space_submit(&space);
	double busy = register_read_us(window);
	printf("register_read_copying %.1f us\n", busy);
	printf("still_copying %d bool\n", !syncobj_is_signalled(fd, done));
	fflush(stdout);
	syncobj_wait(fd, done);
}

static void jobs(int fd)
{
	static uint64_t times[JOBS];
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));

	for (unsigned i = 0; i < JOBS; i++) {
		mi_store_dword(&space.batch, data_va(&space, 0), i);
		uint64_t start = now();
		space_run(&space);
		times[i] = now() - start;
		expect_eq(data(&space, 0)[0], i);
	}
	printf("job_round_trip %.1f us\n", median_us(times, JOBS));
}

static void copies(int fd)
{
	struct { const char *name; uint32_t placement; } targets[] = {
		{ "copy_vram_to_vram", vram(fd) }, { "copy_vram_to_ram", system_memory(fd) },
	};

	for (unsigned i = 0; i < COUNT(targets); i++) {
		struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
		struct bo source = bo_create(fd, 0, BLOCK, vram(fd));
		struct bo target = bo_create(fd, 0, BLOCK, targets[i].placement);

		memset(bo_map(&source), 0x5a, BLOCK);
		bind(fd, space.vm, &source, SOURCE_VA);
		bind(fd, space.vm, &target, TARGET_VA);
		printf("%s %.2f GB/s\n", targets[i].name, BLOCK / copy_seconds(&space) / 1e9);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: xe-figures FUNCTION\n");
		return 2;
	}
	choose_function(argv[1]);
	int fd = xe_open();
	registers(fd);
	jobs(fd);
	copies(fd);
	return 0;
}

// SPDX-License-Identifier: MIT
/* What /proc/PID/fdinfo says of a client: its memory, and its share of every engine. */
#include "batch.h"

/* The number after `key` in the fdinfo of a file, in bytes where a unit is given; ~0 when there is no such line. */
static uint64_t read_key(int fd, const char *key)
{
	char path[64], *line;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	char *text = read_file(path);
	expect(text);
	for (line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		if (strncmp(line, key, strlen(key)) || line[strlen(key)] != ':')
			continue;
		char *end;
		uint64_t value = strtoull(line + strlen(key) + 1, &end, 0);
		value <<= !strncmp(end, " KiB", 4) ? 10 : !strncmp(end, " MiB", 4) ? 20 : 0;
		free(text);
		return value;
	}
	free(text);
	return ~0ull;
}

static const char *class_name(engine e)
{
	static const char *const names[] = { "rcs", "bcs", "vcs", "vecs", "ccs" };

	return names[e.engine_class];
}

struct sample {
	uint64_t busy, total;
};

static struct sample take_sample(int fd, engine e)
{
	char busy[64], total[64];

	snprintf(busy, sizeof(busy), "drm-cycles-%s", class_name(e));
	snprintf(total, sizeof(total), "drm-total-cycles-%s", class_name(e));
	struct sample sample = { .busy = read_key(fd, busy), .total = read_key(fd, total) };

	if (sample.busy == ~0ull && is_vf())
		skip("VFs have no access to the timestamp registers that this is measured against");
	expect_ne(sample.busy, ~0ull);
	expect_ne(sample.total, ~0ull);
	return sample;
}

/* Percent of the time between two samples that the client had the engine. */
static unsigned share(struct sample before, struct sample after)
{
	expect_lt(before.total, after.total);
	expect_le(before.busy, after.busy);
	return 100 * (after.busy - before.busy) / (after.total - before.total);
}

CHECK(a_client_tells_its_device_and_memory)
{
	int fd = xe_open();
	char path[64], pdev[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	snprintf(pdev, sizeof(pdev), "drm-pdev:\t%s", device_pci);
	char *text = read_file(path);
	expect(text && strstr(text, "drm-driver:\txe") && strstr(text, pdev));

	uint64_t before = read_key(fd, "drm-total-vram0");
	struct bo bo = bo_create(fd, 0, MIB(16), vram(fd));
	expect_eq(read_key(fd, "drm-total-vram0"), before + MIB(16));
	expect_ge(read_key(fd, "drm-resident-vram0"), MIB(16));
	bo_close(&bo);
	expect_eq(read_key(fd, "drm-total-vram0"), before);
}

CHECK(an_idle_client_uses_no_engine)
{
	int fd = xe_open(), other = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space idle = space_open(fd, e);

	mi_store_dword(&idle.batch, data_va(&idle, 0), 1);
	space_run(&idle);
	sleep_ms(20);
	struct sample before = take_sample(fd, e);
	struct spinner busy = spinner_start(other, e);
	sleep_ms(50);
	struct sample after = take_sample(fd, e);
	spinner_end(&busy);
	expect_eq(share(before, after), 0);
	expect_eq(after.busy, before.busy);
}

CHECK(a_spinner_keeps_its_engine_busy)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct sample idle = take_sample(fd, *e);
		struct spinner spinner = spinner_start(fd, *e);
		struct sample before = take_sample(fd, *e);
		sleep_ms(200);
		struct sample after = take_sample(fd, *e);
		spinner_end(&spinner);
		unsigned busy = share(before, after);

		note("%s is busy for %u %%", engine_name(*e), busy);
		expect_le(idle.busy, before.busy);
		/* Roughly: the two clocks are not read at the same instant, and an emulated engine may be held up. */
		expect_ge(busy, 60);
		expect_le(busy, 110);
		for_each_engine(fd, f) {
			if (f->engine_class == e->engine_class)
				continue;
			struct sample now_other = take_sample(fd, *f);
			sleep_ms(5);
			expect_eq(take_sample(fd, *f).busy, now_other.busy);
		}
	}
}

CHECK(clients_divide_an_engine_between_them)
{
	int fds[] = { xe_open(), xe_open() };
	engine e = engine_of(fds[0], DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinners[2];
	struct sample before[2], after[2];
	unsigned busy[2];

	for (unsigned i = 0; i < 2; i++)
		spinners[i] = spinner_start(fds[i], e);
	for (unsigned i = 0; i < 2; i++)
		before[i] = take_sample(fds[i], e);
	sleep_ms(400);
	for (unsigned i = 0; i < 2; i++)
		after[i] = take_sample(fds[i], e);
	for (unsigned i = 0; i < 2; i++) {
		spinner_end(&spinners[i]);
		busy[i] = share(before[i], after[i]);
	}
	note("shares of %u %% and %u %%", busy[0], busy[1]);
	for (unsigned i = 0; i < 2; i++) {
		expect_ge(busy[i], 10);
		expect_le(busy[i], 90);
	}
	expect_ge(busy[0] + busy[1], 60);
	expect_le(busy[0] + busy[1], 110);
}

CHECK(what_a_queue_used_stays_when_it_is_gone)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = spinner_start(fd, e);

	sleep_ms(50);
	spinner_end(&spinner);
	struct sample before = take_sample(fd, e);
	must(try_queue_destroy(fd, spinner.space.queue));
	struct sample after = take_sample(fd, e);
	expect_ne(before.busy, 0);
	expect_le(before.busy, after.busy);
}

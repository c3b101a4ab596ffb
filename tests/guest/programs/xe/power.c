// SPDX-License-Identifier: MIT
/* Sleeping, waking, and frequencies. */
#include "batch.h"

static void require_pf(void)
{
	if (is_vf())
		skip("the PF's driver manages the power of its VFs");
}

static bool reads(const char *path, const char *text)
{
	char *content = read_file(path);
	bool same = content && !strcmp(content, text);

	free(content);
	return same;
}

CHECK(an_idle_device_sleeps_and_wakes_with_its_memory)
{
	int fd = xe_open();
	const char *status = sysfs_path("power/runtime_status");

	require_pf();
	if (!reads(sysfs_path("power/control"), "auto"))
		skip("runtime power management is off");
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct bo bo = bo_create(fd, 0, MIB(1), vram(fd));
	volatile uint32_t *words = bo_map(&bo);

	for (unsigned i = 0; i < bo.size / 4; i += 97)
		words[i] = i * 5;
	mi_load_gpr(&space.batch, 9, 0x99);
	space_run(&space);
	for (unsigned round = 1; round < 3; round++) {
		wait_until(reads(status, "suspended"), PATIENCE);
		if (round == 1)
			for (unsigned i = 0; i < bo.size / 4; i += 97)
				expect_eq(words[i], i * 5);
		mi_store_gpr(&space.batch, 9, data_va(&space, 0));
		mi_store_dword(&space.batch, data_va(&space, 2), round);
		space_run(&space);
		expect_eq(*data(&space, 0), 0x99);
		expect_eq(*data(&space, 2), round);
	}
}

static unsigned frequency(const char *name)
{
	const char *path = sysfs_path("tile0/gt0/freq0/%s_freq", name);
	char *text = read_file(path);

	if (!text)
		skip("%s cannot be read", path);
	return strtoul(text, NULL, 10);
}

static int try_set_frequency(const char *name, unsigned megahertz)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", megahertz);
	return try_write_file(sysfs_path("tile0/gt0/freq0/%s_freq", name), text);
}

CHECK(frequencies_are_in_order)
{
	require_pf();
	note("rpn %u, rpe %u, rp0 %u, min %u, max %u, cur %u, act %u MHz", frequency("rpn"), frequency("rpe"),
	     frequency("rp0"), frequency("min"), frequency("max"), frequency("cur"), frequency("act"));
	expect_ne(frequency("rpn"), 0);
	expect_le(frequency("rpn"), frequency("rpe"));
	expect_le(frequency("rpe"), frequency("rp0"));
	expect_le(frequency("rpn"), frequency("min"));
	expect_le(frequency("min"), frequency("max"));
	expect_le(frequency("max"), frequency("rp0"));
	expect_le(frequency("act"), frequency("rp0"));
}

CHECK(frequency_limits_can_be_set_and_hold)
{
	require_pf();
	unsigned rpn = frequency("rpn"), rp0 = frequency("rp0"), min = frequency("min"), max = frequency("max");
	int fd = xe_open();

	expect_error(try_set_frequency("min", rpn - 1), EINVAL);
	expect_error(try_set_frequency("max", rp0 + 1), EINVAL);
	must(try_set_frequency("max", rp0));
	must(try_set_frequency("min", rp0));
	unsigned as_set = frequency("min");
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	unsigned requested = frequency("cur"), actual = frequency("act");
	spinner_end(&spinner);
	must(try_set_frequency("min", min));
	must(try_set_frequency("max", max));
	expect_eq(as_set, rp0);
	expect_eq(requested, rp0);
	expect_ne(actual, 0);
	expect_le(actual, rp0);
	expect_eq(frequency("min"), min);
	expect_eq(frequency("max"), max);
}

CHECK(an_idle_gt_is_in_c6_and_a_busy_one_is_not)
{
	const char *status = sysfs_path("tile0/gt0/gtidle/idle_status");
	const char *residency = sysfs_path("tile0/gt0/gtidle/idle_residency_ms");
	int fd = xe_open();

	require_pf();
	wait_until(reads(status, "gt-c6"), PATIENCE);
	unsigned long before = strtoul(read_file(residency), NULL, 10);
	sleep_ms(100);
	wait_until(strtoul(read_file(residency), NULL, 10) > before, PATIENCE);

	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	expect(reads(status, "gt-c0"));
	spinner_end(&spinner);
}

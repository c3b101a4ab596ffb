// SPDX-License-Identifier: MIT
/* What the device says about itself, and that it is consistent with itself and with what happens. */
#include "xe.h"

#include <time.h>

CHECK(engines_are_distinct_and_of_known_classes)
{
	int fd = xe_open();
	bool copy = false;

	for_each_engine(fd, e) {
		note("%s on gt%u", engine_name(*e), e->gt_id);
		expect_le(e->engine_class, DRM_XE_ENGINE_CLASS_COMPUTE);
		copy |= e->engine_class == DRM_XE_ENGINE_CLASS_COPY;
		for (const engine *other = list_; other < e; other++)
			expect(memcmp(other, e, sizeof(*e)));
	}
	expect(copy);
}

CHECK(memory_regions_are_consistent)
{
	int fd = xe_open();
	struct drm_xe_query_mem_regions *regions = query(fd, DRM_XE_DEVICE_QUERY_MEM_REGIONS, NULL);
	unsigned system_regions = 0;
	uint64_t instances = 0;

	for (unsigned i = 0; i < regions->num_mem_regions; i++) {
		struct drm_xe_mem_region *r = &regions->mem_regions[i];

		note("region %u: class %u, %llu MiB, %llu MiB used, %llu MiB visible", r->instance, r->mem_class,
		     r->total_size >> 20, r->used >> 20, r->cpu_visible_size >> 20);
		expect(!(instances & 1ull << r->instance));
		instances |= 1ull << r->instance;
		expect_ge(r->min_page_size, 4096);
		expect_eq(r->min_page_size & (r->min_page_size - 1), 0);
		expect_ne(r->total_size, 0);
		expect_le(r->used, r->total_size);
		if (r->mem_class == DRM_XE_MEM_REGION_CLASS_SYSMEM) {
			system_regions++;
		} else {
			expect_eq(r->mem_class, DRM_XE_MEM_REGION_CLASS_VRAM);
			expect_ne(r->cpu_visible_size, 0);
			expect_le(r->cpu_visible_size, r->total_size);
			expect_le(r->cpu_visible_used, r->cpu_visible_size);
		}
	}
	expect_eq(system_regions, 1);
}

CHECK(vram_in_use_follows_allocations)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	uint64_t before = steady_use(fd, placement);
	struct bo bo = bo_create(fd, 0, MIB(16), placement);

	expect_ge(memory_region(fd, placement).used, before + MIB(16) - LATE);
	bo_close(&bo);
	/* Freeing waits for the clear. */
	wait_until(memory_region(fd, placement).used <= before, PATIENCE);
}

CHECK(configuration_agrees_with_the_pci_function)
{
	int fd = xe_open();
	struct drm_xe_query_config *config = query(fd, DRM_XE_DEVICE_QUERY_CONFIG, NULL);
	uint64_t id = config->info[DRM_XE_QUERY_CONFIG_REV_AND_DEVICE_ID];
	uint64_t flags = config->info[DRM_XE_QUERY_CONFIG_FLAGS];

	expect_lt(DRM_XE_QUERY_CONFIG_MAX_EXEC_QUEUE_PRIORITY, config->num_params);
	expect_eq(id & 0xffff, strtoul(read_file(sysfs_path("device")), NULL, 16));
	expect_eq(id >> 16 & 0xff, strtoul(read_file(sysfs_path("revision")), NULL, 16));
	expect_eq(config->info[DRM_XE_QUERY_CONFIG_VA_BITS], 48);
	expect_ne(config->info[DRM_XE_QUERY_CONFIG_MAX_EXEC_QUEUE_PRIORITY], 0);
	if (flags & DRM_XE_QUERY_CONFIG_FLAG_HAS_VRAM)
		expect_eq(config->info[DRM_XE_QUERY_CONFIG_MIN_ALIGNMENT], memory_region(fd, vram(fd)).min_page_size);
}

CHECK(gts_have_versions_clocks_and_memories)
{
	int fd = xe_open();
	struct drm_xe_query_gt_list *list = query(fd, DRM_XE_DEVICE_QUERY_GT_LIST, NULL);
	struct drm_xe_query_mem_regions *regions = query(fd, DRM_XE_DEVICE_QUERY_MEM_REGIONS, NULL);
	uint64_t all = 0;
	unsigned main_gts = 0;

	for (unsigned i = 0; i < regions->num_mem_regions; i++)
		all |= 1ull << regions->mem_regions[i].instance;
	for (unsigned i = 0; i < list->num_gt; i++) {
		struct drm_xe_gt *gt = &list->gt_list[i];

		note("gt%u: type %u, IP %u.%02u.%u, clock %u Hz", gt->gt_id, gt->type, gt->ip_ver_major,
		     gt->ip_ver_minor, gt->ip_ver_rev, gt->reference_clock);
		expect_le(gt->type, DRM_XE_QUERY_GT_TYPE_MEDIA);
		main_gts += gt->type == DRM_XE_QUERY_GT_TYPE_MAIN;
		expect_ne(gt->ip_ver_major, 0);
		/* The crystals there are: 19.2, 24, 25 and 38.4 MHz, divided by up to 8 (xe_gt_clock.c). */
		expect_ge(gt->reference_clock, 2400000);
		expect_le(gt->reference_clock, 38400000);
		expect_eq(gt->near_mem_regions & gt->far_mem_regions, 0);
		expect_eq(gt->near_mem_regions | gt->far_mem_regions, all);
	}
	expect_ge(main_gts, 1);
	for_each_engine(fd, e) {
		bool known = false;

		for (unsigned i = 0; i < list->num_gt; i++)
			known |= list->gt_list[i].gt_id == e->gt_id;
		expect(known);
	}
}

CHECK(hardware_configuration_is_a_table_of_keys_and_values)
{
	int fd = xe_open();
	uint32_t size;
	uint32_t *table = query(fd, DRM_XE_DEVICE_QUERY_HWCONFIG, &size);
	uint32_t dwords = size / 4, keys = 0;

	/* Key, length in dwords, values: as Mesa's intel_hwconfig reads it. */
	expect_eq(size % 4, 0);
	for (uint32_t at = 0; at < dwords; keys++) {
		expect_le(at + 2, dwords);
		expect_ne(table[at], 0);
		expect_ne(table[at + 1], 0);
		expect_le(table[at + 1], dwords - at - 2);
		at += 2 + table[at + 1];
	}
	note("%u keys in %u bytes", keys, size);
	expect_ne(keys, 0);
}

static unsigned bits_in(const uint8_t *mask, unsigned bytes)
{
	unsigned count = 0;

	for (unsigned i = 0; i < bytes; i++)
		count += __builtin_popcount(mask[i]);
	return count;
}

CHECK(topology_of_every_gt_with_compute_has_units)
{
	int fd = xe_open();
	uint32_t size;
	char *topology = query(fd, DRM_XE_DEVICE_QUERY_GT_TOPOLOGY, &size);
	unsigned found[8][8] = {};

	for (uint32_t at = 0; at < size;) {
		struct drm_xe_query_topology_mask *mask = (void *)(topology + at);

		expect_le(at + sizeof(*mask) + mask->num_bytes, size);
		expect_lt(mask->gt_id, COUNT(found));
		expect_lt(mask->type, COUNT(*found));
		found[mask->gt_id][mask->type] = bits_in(mask->mask, mask->num_bytes);
		note("gt%u type %u: %u set", mask->gt_id, mask->type, found[mask->gt_id][mask->type]);
		at += sizeof(*mask) + mask->num_bytes;
	}
	for_each_engine(fd, e) {
		if (e->engine_class != DRM_XE_ENGINE_CLASS_RENDER && e->engine_class != DRM_XE_ENGINE_CLASS_COMPUTE)
			continue;
		unsigned *units = found[e->gt_id];

		expect_ne(units[DRM_XE_TOPO_DSS_GEOMETRY] | units[DRM_XE_TOPO_DSS_COMPUTE], 0);
		expect_ne(units[DRM_XE_TOPO_EU_PER_DSS] | units[DRM_XE_TOPO_SIMD16_EU_PER_DSS], 0);
	}
}

static int try_firmware_version(int fd, uint16_t type, struct drm_xe_query_uc_fw_version *version)
{
	struct drm_xe_device_query arguments = {
		.query = DRM_XE_DEVICE_QUERY_UC_FW_VERSION,
		.size = sizeof(*version),
		.data = (uintptr_t)version,
	};

	*version = (struct drm_xe_query_uc_fw_version){ .uc_type = type };
	return try_query(fd, &arguments);
}

CHECK(guc_tells_its_submission_version)
{
	struct drm_xe_query_uc_fw_version version;
	int fd = xe_open();

	must(try_firmware_version(fd, XE_QUERY_UC_TYPE_GUC_SUBMISSION, &version));
	note("GuC submission interface %u.%u.%u", version.major_ver, version.minor_ver, version.patch_ver);
	expect_ge(version.major_ver, 1);
	expect_error(try_firmware_version(fd, 7, &version), EINVAL);
}

CHECK(huc_tells_its_version_or_that_it_is_absent)
{
	struct drm_xe_query_uc_fw_version version;
	int result = try_firmware_version(xe_open(), XE_QUERY_UC_TYPE_HUC, &version);

	if (result == -ENODEV)
		skip("the device has no HuC that runs");
	must(result);
	expect_ne(version.major_ver, 0);
}

static int try_engine_cycles(int fd, engine e, int32_t clock, struct drm_xe_query_engine_cycles *cycles)
{
	struct drm_xe_device_query arguments = {
		.query = DRM_XE_DEVICE_QUERY_ENGINE_CYCLES,
		.size = sizeof(*cycles),
		.data = (uintptr_t)cycles,
	};

	*cycles = (struct drm_xe_query_engine_cycles){ .eci = e, .clockid = clock };
	return try_query(fd, &arguments);
}

static uint32_t reference_clock(int fd, uint16_t gt_id)
{
	struct drm_xe_query_gt_list *list = query(fd, DRM_XE_DEVICE_QUERY_GT_LIST, NULL);

	for (unsigned i = 0; i < list->num_gt; i++)
		if (list->gt_list[i].gt_id == gt_id)
			return list->gt_list[i].reference_clock;
	FAIL("gt%u is not in the list", gt_id);
}

CHECK(engine_cycles_run_at_the_reference_clock)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct drm_xe_query_engine_cycles first, second;
		int result = try_engine_cycles(fd, *e, CLOCK_MONOTONIC_RAW, &first);

		if (result == -EOPNOTSUPP && is_vf())
			skip("VFs have no access to the timestamp registers");
		must(result);
		sleep_ms(50);
		must(try_engine_cycles(fd, *e, CLOCK_MONOTONIC_RAW, &second));
		expect_lt(first.engine_cycles, second.engine_cycles);

		/* Each reading happened within cpu_delta after its cpu_timestamp; the clocks may differ by 0.5 %. */
		double clock = reference_clock(fd, e->gt_id);
		double device = (second.engine_cycles - first.engine_cycles) * 1e9 / clock;
		double cpu = second.cpu_timestamp - first.cpu_timestamp;
		double difference = device > cpu ? device - cpu : cpu - device;
		note("%s: %.0f ns by cycles, %.0f ns by CPU, read within %llu and %llu ns", engine_name(*e), device,
		     cpu, first.cpu_delta, second.cpu_delta);
		expect(difference <= first.cpu_delta + second.cpu_delta + cpu * 0.005);
	}
}

CHECK(engine_cycles_never_go_back)
{
	int fd = xe_open();
	uint64_t last = 0;
	const engine *list;

	engines(fd, &list);
	for (int i = 0; i < 200; i++) {
		struct drm_xe_query_engine_cycles cycles;
		int result = try_engine_cycles(fd, list[0], CLOCK_MONOTONIC, &cycles);

		if (result == -EOPNOTSUPP && is_vf())
			skip("VFs have no access to the timestamp registers");
		must(result);
		expect_le(last, cycles.engine_cycles);
		last = cycles.engine_cycles;
	}
}

CHECK(engine_cycles_are_stamped_with_the_clock_asked_for)
{
	static const int32_t clocks[] = { CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_TAI };
	struct drm_xe_query_engine_cycles cycles;
	int fd = xe_open();
	const engine *list;

	engines(fd, &list);
	if (is_vf() && try_engine_cycles(fd, list[0], CLOCK_MONOTONIC, &cycles) == -EOPNOTSUPP)
		skip("VFs have no access to the timestamp registers");
	for (unsigned i = 0; i < COUNT(clocks); i++) {
		struct timespec before, after;

		clock_gettime(clocks[i], &before);
		must(try_engine_cycles(fd, list[0], clocks[i], &cycles));
		clock_gettime(clocks[i], &after);
		expect_le(before.tv_sec * 1000000000ull + before.tv_nsec, cycles.cpu_timestamp);
		expect_le(cycles.cpu_timestamp, after.tv_sec * 1000000000ull + after.tv_nsec);
		expect(cycles.width == 64 || cycles.width == 36);
	}
	expect_error(try_engine_cycles(fd, list[0], CLOCK_PROCESS_CPUTIME_ID, &cycles), EINVAL);
	expect_error(try_engine_cycles(fd, (engine){ .engine_class = 99 }, CLOCK_MONOTONIC, &cycles), EINVAL);
	expect_error(try_engine_cycles(fd, (engine){ .gt_id = 99 }, CLOCK_MONOTONIC, &cycles), EINVAL);
}

CHECK(queries_refuse_wrong_arguments)
{
	static const uint32_t sized[] = { DRM_XE_DEVICE_QUERY_ENGINES,	    DRM_XE_DEVICE_QUERY_MEM_REGIONS,
					  DRM_XE_DEVICE_QUERY_CONFIG,	    DRM_XE_DEVICE_QUERY_GT_LIST,
					  DRM_XE_DEVICE_QUERY_HWCONFIG,	    DRM_XE_DEVICE_QUERY_GT_TOPOLOGY,
					  DRM_XE_DEVICE_QUERY_UC_FW_VERSION };
	char buffer[16384];
	int fd = xe_open();

	for (unsigned i = 0; i < COUNT(sized); i++) {
		struct drm_xe_device_query q = { .query = sized[i] };

		must(try_query(fd, &q));
		expect_ne(q.size, 0);
		q.size += 4;
		q.data = (uintptr_t)buffer;
		expect_error(try_query(fd, &q), EINVAL);
	}
	expect_error(try_query(fd, &(struct drm_xe_device_query){ .query = 0xffff }), EINVAL);
	expect_error(try_query(fd, &(struct drm_xe_device_query){ .extensions = 8 }), EINVAL);
	expect_error(try_query(fd, &(struct drm_xe_device_query){ .reserved = { 1 } }), EINVAL);

	struct drm_xe_device_query q = { .query = DRM_XE_DEVICE_QUERY_ENGINES };
	must(try_query(fd, &q));
	q.data = 8;
	expect_error(try_query(fd, &q), EFAULT);
}

// SPDX-License-Identifier: MIT
/* Buffers as the CPU sees them: VRAM through the BAR, system memory, and the PCI barrier page. */
#include "batch.h"

#include <sys/mman.h>

/* A value that differs for every place. */
static uint64_t pattern(uint64_t index)
{
	return index * 0x9e3779b97f4a7c15ull + 1;
}

static void write_and_verify(struct bo *bo)
{
	volatile uint64_t *words = bo_map(bo);

	for (uint64_t i = 0; i < bo->size / 8; i += 61)
		words[i] = pattern(i);
	for (uint64_t i = 0; i < bo->size / 8; i += 61)
		expect_eq(words[i], pattern(i));
}

CHECK(vram_keeps_what_the_cpu_writes)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, MIB(4), vram(fd));

	write_and_verify(&bo);
}

CHECK(system_memory_keeps_what_the_cpu_writes_in_either_caching)
{
	int fd = xe_open();
	static const uint16_t cachings[] = { DRM_XE_GEM_CPU_CACHING_WB, DRM_XE_GEM_CPU_CACHING_WC };

	for (unsigned i = 0; i < COUNT(cachings); i++) {
		struct drm_xe_gem_create arguments = {
			.size = MIB(1),
			.placement = system_memory(fd),
			.cpu_caching = cachings[i],
		};

		must(try_gem_create(fd, &arguments));
		struct bo bo = { .fd = fd, .handle = arguments.handle, .size = arguments.size };
		write_and_verify(&bo);
	}
}

CHECK(vram_takes_accesses_of_every_width_and_alignment)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	volatile uint8_t *bytes = bo_map(&bo);

	for (unsigned at = 0; at < 16; at++) {
		*(volatile uint64_t *)(bytes + 4096 + at) = 0x1122334455667788;
		expect_eq(*(volatile uint64_t *)(bytes + 4096 + at), 0x1122334455667788);
		*(volatile uint32_t *)(bytes + 8192 + at) = 0x99aabbcc;
		expect_eq(*(volatile uint32_t *)(bytes + 8192 + at), 0x99aabbcc);
		*(volatile uint16_t *)(bytes + 12288 + at) = 0xddee;
		expect_eq(*(volatile uint16_t *)(bytes + 12288 + at), 0xddee);
		bytes[16384 + at] = at;
	}
	for (unsigned at = 0; at < 16; at++)
		expect_eq(bytes[16384 + at], at);
	/* Across a page's end. */
	*(volatile uint64_t *)(bytes + 20480 - 3) = 0x0102030405060708;
	expect_eq(bytes[20480 - 3], 8);
	expect_eq(bytes[20480], 5);
	expect_eq(*(volatile uint64_t *)(bytes + 20480 - 3), 0x0102030405060708);
}

CHECK(two_mappings_show_the_same_buffer)
{
	int fd = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned i = 0; i < COUNT(placements); i++) {
		struct bo bo = bo_create(fd, 0, KIB(64), placements[i]);
		volatile uint32_t *first = bo_map(&bo);
		volatile uint32_t *second =
			mmap(NULL, KIB(8), PROT_READ | PROT_WRITE, MAP_SHARED, fd, mmap_offset(fd, bo.handle));

		expect(second != MAP_FAILED);
		first[KIB(4) / 4] = 0x1234;
		expect_eq(second[KIB(4) / 4], 0x1234);
		second[0] = 0x5678;
		expect_eq(first[0], 0x5678);
	}
}

CHECK(a_mapping_outlives_its_handle)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	volatile uint32_t *words = bo_map(&bo);

	words[5] = 55;
	must(try_gem_close(fd, bo.handle));
	/* Whoever comes next does not get this memory. */
	for (unsigned i = 0; i < 16; i++) {
		struct bo next = bo_create(fd, 0, KIB(64), vram(fd));

		memset(bo_map(&next), 0xff, next.size);
	}
	expect_eq(words[5], 55);
	words[6] = 66;
	expect_eq(words[6], 66);
}

CHECK(other_files_cannot_map_a_buffer)
{
	int fd = xe_open(), other = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(4), system_memory(fd));
	void *map = mmap(NULL, bo.size, PROT_READ, MAP_SHARED, other, mmap_offset(fd, bo.handle));

	expect(map == MAP_FAILED);
	expect_eq(errno, EACCES);
}

CHECK(gpu_and_cpu_see_the_same_memory)
{
	int fd = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd) };
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);

	for (unsigned p = 0; p < COUNT(placements); p++) {
		struct space space = space_on(fd, e, placements[p], 0);

		for (unsigned round = 1; round < 20; round++) {
			*data(&space, 0) = round;
			mi_copy_mem_mem(&space.batch, data_va(&space, 64), data_va(&space, 0));
			mi_store_dword(&space.batch, data_va(&space, 128), ~round);
			space_run(&space);
			expect_eq(*data(&space, 64), round);
			expect_eq(*data(&space, 128), ~round);
		}
	}
}

CHECK(offsets_of_unknown_handles_and_flags_are_refused)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(4), system_memory(fd));

	expect_error(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &(struct drm_xe_gem_mmap_offset){ .handle = 0x7777 }),
		     ENOENT);
	expect_error(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET,
			       &(struct drm_xe_gem_mmap_offset){ .handle = bo.handle, .flags = 1u << 30 }),
		     EINVAL);
	expect_error(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET,
			       &(struct drm_xe_gem_mmap_offset){ .handle = bo.handle, .reserved = { 1 } }),
		     EINVAL);
}

CHECK(the_pci_barrier_page_takes_writes_only)
{
	int fd = xe_open();
	struct drm_xe_gem_mmap_offset arguments = { .flags = DRM_XE_MMAP_OFFSET_FLAG_PCI_BARRIER };
	struct bo bo = bo_create(fd, 0, KIB(4), system_memory(fd));

	must(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &arguments));
	expect(mmap(NULL, KIB(4), PROT_READ, MAP_SHARED, fd, arguments.offset) == MAP_FAILED);
	expect(mmap(NULL, KIB(4), PROT_WRITE, MAP_PRIVATE, fd, arguments.offset) == MAP_FAILED);
	expect(mmap(NULL, KIB(8), PROT_WRITE, MAP_SHARED, fd, arguments.offset) == MAP_FAILED);
	volatile uint32_t *barrier = mmap(NULL, KIB(4), PROT_WRITE, MAP_SHARED, fd, arguments.offset);
	expect(barrier != MAP_FAILED);
	for (unsigned i = 0; i < 1000; i++)
		barrier[0] = i;

	struct drm_xe_gem_mmap_offset of_a_buffer = { .handle = bo.handle, .flags = DRM_XE_MMAP_OFFSET_FLAG_PCI_BARRIER };
	expect_error(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &of_a_buffer), EINVAL);
}

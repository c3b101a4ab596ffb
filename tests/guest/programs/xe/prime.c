// SPDX-License-Identifier: MIT
/* Buffers shared as dma-bufs between files of the same device. */
#include "batch.h"

#include <linux/dma-buf.h>
#include <poll.h>
#include <sys/mman.h>

static int export(struct bo *bo)
{
	int dmabuf;

	must(try_prime_export(bo->fd, bo->handle, &dmabuf));
	return dmabuf;
}

static struct bo import(int fd, int dmabuf, uint64_t size)
{
	struct bo bo = { .fd = fd, .size = size };

	must(try_prime_import(fd, dmabuf, &bo.handle));
	return bo;
}

CHECK(importing_into_the_same_file_gives_the_same_handle)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	int dmabuf = export(&bo);

	expect_eq(import(fd, dmabuf, bo.size).handle, bo.handle);
	expect_eq(lseek(dmabuf, 0, SEEK_END), bo.size);
}

CHECK(another_file_sees_the_same_memory)
{
	int fd = xe_open(), other = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned i = 0; i < COUNT(placements); i++) {
		struct bo bo = bo_create(fd, 0, KIB(64), placements[i]);
		struct bo imported = import(other, export(&bo), bo.size);
		volatile uint32_t *here = bo_map(&bo), *there = bo_map(&imported);

		here[100] = 0x1111;
		expect_eq(there[100], 0x1111);
		there[200] = 0x2222;
		expect_eq(here[200], 0x2222);
	}
}

CHECK(engines_of_both_files_reach_a_shared_buffer)
{
	int fd = xe_open(), other = xe_open();
	struct space first = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct space second = space_open(other, engine_of(other, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned i = 0; i < COUNT(placements); i++) {
		struct bo bo = bo_create(fd, 0, MIB(1), placements[i]);
		struct bo imported = import(other, export(&bo), bo.size);

		bind(fd, first.vm, &bo, GIB(8));
		bind(other, second.vm, &imported, GIB(9));
		mi_store_dword(&first.batch, GIB(8) + KIB(100), 0x3000 + i);
		space_run(&first);
		mi_copy_mem_mem(&second.batch, GIB(9) + KIB(200), GIB(9) + KIB(100));
		space_run(&second);
		expect_eq(((volatile uint32_t *)bo_map(&bo))[KIB(200) / 4], 0x3000 + i);
		unbind(fd, first.vm, GIB(8), bo.size);
		unbind(other, second.vm, GIB(9), bo.size);
	}
}

CHECK(a_shared_buffer_outlives_its_exporter)
{
	int fd = xe_open(), other = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));

	((volatile uint32_t *)bo_map(&bo))[9] = 99;
	int dmabuf = export(&bo);
	bo_close(&bo);
	close(fd);
	struct bo imported = import(other, dmabuf, KIB(64));
	close(dmabuf);
	for (unsigned i = 0; i < 8; i++) {
		struct bo next = bo_create(other, 0, KIB(64), vram(other));

		memset(bo_map(&next), 0xff, next.size);
	}
	expect_eq(((volatile uint32_t *)bo_map(&imported))[9], 99);
}

CHECK(a_dma_buf_can_be_mapped_itself)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	int dmabuf = export(&bo);
	volatile uint32_t *map = mmap(NULL, bo.size, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, 0);
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };

	expect(map != MAP_FAILED);
	must(try_ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &sync));
	map[3] = 0x33;
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
	must(try_ioctl(dmabuf, DMA_BUF_IOCTL_SYNC, &sync));
	expect_eq(((volatile uint32_t *)bo_map(&bo))[3], 0x33);
}

CHECK(fences_travel_with_a_dma_buf)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	int dmabuf = export(&bo);
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct dma_buf_import_sync_file attach = {
		.flags = DMA_BUF_SYNC_WRITE,
		.fd = syncobj_to_sync_file(fd, spinner.done),
	};
	struct dma_buf_export_sync_file detach = { .flags = DMA_BUF_SYNC_READ };

	must(try_ioctl(dmabuf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &attach));
	must(try_ioctl(dmabuf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &detach));
	struct pollfd ended = { .fd = detach.fd, .events = POLLIN };
	expect_eq(poll(&ended, 1, 20), 0);
	*spinner.go_on = 0;
	expect_eq(poll(&ended, 1, PATIENCE), 1);
	syncobj_wait(fd, spinner.done);
}

CHECK(memory_of_shared_buffers_is_freed_with_the_last_user)
{
	int fd = xe_open(), other = xe_open();
	uint32_t placement = vram(fd);
	uint64_t before = steady_use(fd, placement);
	struct bo bo = bo_create(fd, 0, MIB(16), placement);
	int dmabuf = export(&bo);
	struct bo imported = import(other, dmabuf, bo.size);

	bo_close(&bo);
	close(dmabuf);
	expect_ge(memory_region(fd, placement).used, before + MIB(16) - LATE);
	bo_close(&imported);
	wait_until(memory_region(fd, placement).used <= before, PATIENCE);
}

CHECK(what_is_no_dma_buf_cannot_be_imported)
{
	int fd = xe_open(), dmabuf;
	uint32_t handle;

	expect_error(try_prime_import(fd, 0, &handle), EINVAL);
	expect_error(try_prime_import(fd, 9999, &handle), EBADF);
	expect_error(try_prime_export(fd, 0x7777, &dmabuf), ENOENT);
}

// SPDX-License-Identifier: MIT
/* The device under test: opening it, asking it, its files in sysfs and debugfs; see xe.h. */
#define _GNU_SOURCE
#include "xe.h"

#include <fcntl.h>
#include <stdarg.h>

int xe_open(void)
{
	int fd = open(device_node, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		FAIL("%s: %s", device_node, strerror(errno));
	return fd;
}

bool is_vf(void)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/physfn", device_pci);
	return access(path, F_OK) == 0;
}

int try_query(int fd, struct drm_xe_device_query *arguments)
{
	return try_ioctl(fd, DRM_IOCTL_XE_DEVICE_QUERY, arguments);
}

void *query(int fd, uint32_t what, uint32_t *size)
{
	struct drm_xe_device_query arguments = { .query = what };

	must(try_query(fd, &arguments));
	void *data = calloc(1, arguments.size + 1);
	arguments.data = (uintptr_t)data;
	must(try_query(fd, &arguments));
	if (size)
		*size = arguments.size;
	return data;
}

unsigned engines(int fd, const engine **list)
{
	static engine found[64];
	static unsigned count;

	if (!count) {
		struct drm_xe_query_engines *answer = query(fd, DRM_XE_DEVICE_QUERY_ENGINES, NULL);

		expect_le(answer->num_engines, COUNT(found));
		expect_ne(answer->num_engines, 0);
		for (unsigned i = 0; i < answer->num_engines; i++)
			found[i] = answer->engines[i].instance;
		count = answer->num_engines;
		free(answer);
	}
	*list = found;
	return count;
}

const char *engine_name(engine e)
{
	static const char *const classes[] = { "render", "copy", "decode", "enhance", "compute", "bind" };
	static __thread char names[4][32];
	static __thread unsigned next;
	char *name = names[next++ % COUNT(names)];

	snprintf(name, sizeof(*names), "%s%u", e.engine_class < COUNT(classes) ? classes[e.engine_class] : "?",
		 e.engine_instance);
	return name;
}

engine engine_of(int fd, uint16_t engine_class)
{
	engine missing = { .engine_class = engine_class };

	for_each_engine(fd, e)
		if (e->engine_class == engine_class)
			return *e;
	skip("the device has no %s engine", engine_name(missing));
}

static uint32_t placement_of(int fd, uint16_t memory_class)
{
	struct drm_xe_query_mem_regions *regions = query(fd, DRM_XE_DEVICE_QUERY_MEM_REGIONS, NULL);
	uint32_t placement = 0;

	for (unsigned i = 0; i < regions->num_mem_regions && !placement; i++)
		if (regions->mem_regions[i].mem_class == memory_class)
			placement = 1u << regions->mem_regions[i].instance;
	free(regions);
	return placement;
}

uint32_t system_memory(int fd)
{
	uint32_t placement = placement_of(fd, DRM_XE_MEM_REGION_CLASS_SYSMEM);

	expect_ne(placement, 0);
	return placement;
}

uint32_t vram(int fd)
{
	uint32_t placement = placement_of(fd, DRM_XE_MEM_REGION_CLASS_VRAM);

	if (!placement)
		skip("the device has no VRAM");
	return placement;
}

struct drm_xe_mem_region memory_region(int fd, uint32_t placement)
{
	struct drm_xe_query_mem_regions *regions = query(fd, DRM_XE_DEVICE_QUERY_MEM_REGIONS, NULL);

	for (unsigned i = 0; i < regions->num_mem_regions; i++) {
		if (placement == 1u << regions->mem_regions[i].instance) {
			struct drm_xe_mem_region found = regions->mem_regions[i];

			free(regions);
			return found;
		}
	}
	FAIL("no memory region for placement %#x", placement);
}

uint64_t steady_use(int fd, uint32_t placement)
{
	uint64_t used = memory_region(fd, placement).used;

	for (unsigned same = 0, tries = 0; same < 10 && tries < 200; tries++) {
		uint64_t now;

		sleep_ms(10);
		now = memory_region(fd, placement).used;
		same = now == used ? same + 1 : 0;
		used = now;
	}
	return used;
}

static const char *device_path(const char *base, const char *format, va_list arguments)
{
	char *path = malloc(512);
	int length = snprintf(path, 512, "%s/%s/", base, device_pci);

	vsnprintf(path + length, 512 - length, format, arguments);
	return path;
}

const char *sysfs_path(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	const char *path = device_path("/sys/bus/pci/devices", format, arguments);
	va_end(arguments);
	return path;
}

const char *debugfs_path(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	const char *path = device_path("/sys/kernel/debug/dri", format, arguments);
	va_end(arguments);
	return path;
}

char *read_file(const char *path)
{
	size_t used = 0, size = 1 << 16;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = malloc(size);

	if (fd < 0)
		return NULL;
	for (ssize_t got; (got = read(fd, text + used, size - used - 1)) > 0;) {
		used += got;
		if (used == size - 1)
			text = realloc(text, size *= 2);
	}
	close(fd);
	text[used] = 0;
	if (used && text[used - 1] == '\n')
		text[used - 1] = 0;
	return text;
}

int try_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t written = write(fd, text, strlen(text));
	int error = errno;
	close(fd);
	return written < 0 ? -error : 0;
}

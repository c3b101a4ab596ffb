// SPDX-License-Identifier: MIT
/* The exporter's side: a VF through VFIO's groups and type 1 containers, or none (no-IOMMU) where that is all there is. */
#include "client.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#define BAR2 VFIO_PCI_BAR2_REGION_INDEX

static int open_group(const char *address)
{
	char path[128], link[256];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
	ssize_t length = readlink(path, link, sizeof(link) - 1);

	if (length < 0)
		return -errno;
	link[length] = 0;
	const char *number = strrchr(link, '/') + 1;

	snprintf(path, sizeof(path), "/dev/vfio/%s", number);
	int group = open(path, O_RDWR | O_CLOEXEC);

	if (group < 0 && errno == ENOENT) {
		snprintf(path, sizeof(path), "/dev/vfio/noiommu-%s", number);
		group = open(path, O_RDWR | O_CLOEXEC);
	}
	return group < 0 ? -errno : group;
}

static long attach(struct object *vf)
{
	long result = call(vf->group, VFIO_GROUP_SET_CONTAINER, &vf->container);

	if (result < 0)
		return result;
	result = ioctl_value(vf->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
	return result == -ENODEV ? ioctl_value(vf->container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU) : result;
}

long vfio_open(struct object *vf, const char *address)
{
	vf->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (vf->container < 0)
		return -errno;
	vf->group = open_group(address);
	if (vf->group < 0)
		return vf->group;
	long result = attach(vf);

	if (result < 0)
		return result;
	result = call(vf->group, VFIO_GROUP_GET_DEVICE_FD, (void *)address);
	if (result < 0)
		return result;
	vf->fd = result;
	for (unsigned index = 0; index < REGIONS; index++) {
		struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

		if (call(vf->fd, VFIO_DEVICE_GET_REGION_INFO, &info) == 0) {
			vf->region_offset[index] = info.offset;
			vf->region_size[index] = info.size;
		}
	}
	void *map = mmap(NULL, vf->region_size[BAR2], PROT_READ | PROT_WRITE, MAP_SHARED, vf->fd, vf->region_offset[BAR2]);

	if (map == MAP_FAILED)
		return -errno;
	vf->bar2 = map;
	say("container=%d group=%d device=%d bar2=%#llx", vf->container, vf->group, vf->fd,
	    (unsigned long long)vf->region_size[BAR2]);
	return 0;
}

long vfio_reset(struct object *vf)
{
	return call(vf->fd, VFIO_DEVICE_RESET, NULL);
}

long vfio_config_write(struct object *vf, uint32_t offset, uint32_t size, uint32_t value)
{
	ssize_t done = pwrite(vf->fd, &value, size, vf->region_offset[VFIO_PCI_CONFIG_REGION_INDEX] + offset);

	return done < 0 ? -errno : done == size ? 0 : -EIO;
}

long vfio_config_read(struct object *vf, uint32_t offset, uint32_t size, uint32_t *value)
{
	*value = 0;
	ssize_t done = pread(vf->fd, value, size, vf->region_offset[VFIO_PCI_CONFIG_REGION_INDEX] + offset);

	return done < 0 ? -errno : done == size ? 0 : -EIO;
}

long vfio_feature(struct object *vf, uint32_t flags)
{
	struct vfio_device_feature feature = { .argsz = sizeof(feature), .flags = flags };

	return call(vf->fd, VFIO_DEVICE_FEATURE, &feature);
}

long vfio_export(struct object *vf, uint32_t region, uint32_t flags, const char *ranges, uint64_t *size)
{
	unsigned count = 0;

	for (const char *at = ranges; *at; at++)
		count += *at == '+';
	size_t length = sizeof(struct vfio_device_feature) + sizeof(struct vfio_device_feature_dma_buf) +
			count * sizeof(struct vfio_region_dma_range);
	struct vfio_device_feature *feature = calloc(1, length);
	struct vfio_device_feature_dma_buf *wanted = (void *)feature->data;

	feature->argsz = length;
	feature->flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
	wanted->region_index = region;
	wanted->open_flags = O_RDWR | O_CLOEXEC;
	wanted->flags = flags;
	wanted->nr_ranges = count;
	*size = 0;
	for (unsigned i = 0; i < count; i++) {
		char *end;

		wanted->dma_ranges[i].offset = strtoull(ranges, &end, 0);
		wanted->dma_ranges[i].length = strtoull(end + 1, &end, 0);
		*size += wanted->dma_ranges[i].length;
		ranges = end + 1;
	}
	long result = call(vf->fd, VFIO_DEVICE_FEATURE, feature);

	free(feature);
	return result;
}

// SPDX-License-Identifier: MIT
/* The exporter's side: a VF through VFIO's groups and type 1 containers, or none (no-IOMMU) where that is all there is. */
#include "client.h"

#include <dirent.h>
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

/* By its group, in a type 1 container of its own or (`beside`) in another VF's. */
static long open_by_group(struct object *vf, const char *address, const struct object *beside)
{
	vf->container = beside ? dup(beside->container) : open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (vf->container < 0)
		return -errno;
	vf->group = open_group(address);
	if (vf->group < 0)
		return vf->group;
	long result = beside ? call(vf->group, VFIO_GROUP_SET_CONTAINER, &vf->container) : attach(vf);

	if (result < 0)
		return result;
	return call(vf->group, VFIO_GROUP_GET_DEVICE_FD, (void *)address);
}

/* By its character device, attached to an address space of iommufd. */
static long open_by_device(const char *address, const struct object *iommufd)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev", address);
	DIR *folder = opendir(path);

	if (!folder)
		return -errno;
	path[0] = 0;
	for (struct dirent *entry; (entry = readdir(folder));)
		if (!strncmp(entry->d_name, "vfio", 4))
			snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
	closedir(folder);
	int device = path[0] ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (device < 0)
		return -errno;
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = iommufd->fd };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach), .pt_id = iommufd->ioas };
	long result = call(device, VFIO_DEVICE_BIND_IOMMUFD, &bind);

	if (result == 0)
		result = call(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
	if (result == 0)
		return device;
	close(device);
	return result;
}

long vfio_open(struct object *vf, const char *address, const struct object *where)
{
	bool by_device = where && where->kind == IOMMUFD;
	long result = by_device ? open_by_device(address, where) : open_by_group(vf, address, where);

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

long vfio_map(struct object *vf, uint64_t iova, uint64_t offset, uint64_t length)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)vf->bar2 + offset,
		.iova = iova,
		.size = length,
	};

	return call(vf->container, VFIO_IOMMU_MAP_DMA, &map);
}

long vfio_unmap(struct object *vf, uint64_t iova, uint64_t length)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = iova, .size = length };
	long result = call(vf->container, VFIO_IOMMU_UNMAP_DMA, &unmap);

	say("unmapped=%#llx", (unsigned long long)unmap.size);
	return result;
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

long vfio_set_feature(struct object *vf, uint32_t number, uint32_t bytes, int fd, uint32_t value)
{
	struct {
		struct vfio_device_feature head;
		int32_t fd;
		uint32_t value;
	} feature = {
		.head = { .argsz = sizeof(feature.head) + bytes, .flags = VFIO_DEVICE_FEATURE_SET | number },
		.fd = fd,
		.value = value,
	};

	return bytes > sizeof(feature) - sizeof(feature.head) ? -ERANGE : call(vf->fd, VFIO_DEVICE_FEATURE, &feature);
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

// SPDX-License-Identifier: MIT
/* iommufd as another importer of a dma-buf. */
#include "client.h"

#include <fcntl.h>
#include <linux/iommufd.h>

long iommufd_open(struct object *iommufd)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	iommufd->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommufd->fd < 0)
		return -errno;
	long result = call(iommufd->fd, IOMMU_IOAS_ALLOC, &alloc);

	iommufd->ioas = alloc.out_ioas_id;
	return result;
}

long iommufd_map(struct object *iommufd, int dmabuf, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_map_file map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = iommufd->ioas,
		.fd = dmabuf,
		.length = length,
		.iova = iova,
	};

	return call(iommufd->fd, IOMMU_IOAS_MAP_FILE, &map);
}

long iommufd_unmap(struct object *iommufd, uint64_t iova, uint64_t length)
{
	struct iommu_ioas_unmap unmap = { .size = sizeof(unmap), .ioas_id = iommufd->ioas, .iova = iova, .length = length };

	return call(iommufd->fd, IOMMU_IOAS_UNMAP, &unmap);
}

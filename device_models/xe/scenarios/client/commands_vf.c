// SPDX-License-Identifier: MIT
/* Commands on VFs by VFIO: opened, their BAR2 read and written, reset, exported. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <linux/pci_regs.h>

/* vfio NAME ADDRESS [VF|IOMMUFD] */
long do_vfio(char **w)
{
	struct object *where = w[2] ? object_named(w[2]) : NULL;

	if (w[2] && (!where || (where->kind != VFIO && where->kind != IOMMUFD)))
		return -ENXIO;
	return vfio_open(object_create(w[0], VFIO), w[1], where);
}

/* dma-map VF IOVA OFFSET LENGTH: of its BAR2, for all devices of its container */
long do_dma_map(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_map(vf, to_number(w[1]), to_number(w[2]), to_number(w[3]));
}

long do_dma_unmap(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_unmap(vf, to_number(w[1]), to_number(w[2]));
}

static bool inside(struct object *vf, uint64_t offset, uint64_t length)
{
	return within(vf->region_size[2], offset, length) && !(offset % 4) && !(length % 4);
}

long do_fill(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, to_number(w[1]), to_number(w[2])))
		return -ERANGE;
	pattern_write(vf->bar2 + to_number(w[1]), to_number(w[1]), to_number(w[2]), to_number(w[3]));
	return 0;
}

long do_check(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, to_number(w[1]), to_number(w[2])))
		return -ERANGE;
	return pattern_check(vf->bar2 + to_number(w[1]), to_number(w[1]), to_number(w[2]), to_number(w[3]));
}

long do_peek(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, to_number(w[1]), 4))
		return -ERANGE;
	say("value=%#x", *(volatile uint32_t *)(vf->bar2 + to_number(w[1])));
	return 0;
}

/* clean VF OFFSET LENGTH: nothing is there, as after a reset */
long do_clean(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, to_number(w[1]), to_number(w[2])))
		return -ERANGE;
	const volatile uint32_t *words = (const volatile uint32_t *)(vf->bar2 + to_number(w[1]));

	for (uint64_t i = 0; i < to_number(w[2]) / 4; i++)
		if (words[i]) {
			say("first=%#llx found=%#x", (unsigned long long)(to_number(w[1]) + 4 * i), words[i]);
			return -EILSEQ;
		}
	return 0;
}

long do_text(char **w)
{
	WANT(vf, w[0], VFIO);
	size_t length = strlen(w[2]);

	if (!inside(vf, to_number(w[1]), (length + 7) & ~3ull))
		return -ERANGE;
	memcpy(vf->bar2 + to_number(w[1]), w[2], length + 1);
	return 0;
}

long do_reset(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_reset(vf);
}

/* Initiate Function Level Reset, in Device Control of the PCI Express capability (pci_regs.h). */
long do_flr(char **w)
{
	WANT(vf, w[0], VFIO);
	uint32_t at, header = 0;
	long result = vfio_config_read(vf, PCI_CAPABILITY_LIST, 1, &at);

	while (result == 0 && at) {
		result = vfio_config_read(vf, at, 2, &header);
		if (result == 0 && (header & 0xff) == PCI_CAP_ID_EXP)
			return vfio_config_write(vf, at + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
		at = header >> 8;
	}
	return result ? result : -ENOENT;
}

long do_config(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_config_write(vf, to_number(w[1]), to_number(w[2]), to_number(w[3]));
}

long do_read_config(char **w)
{
	WANT(vf, w[0], VFIO);
	uint32_t found;
	long result = vfio_config_read(vf, to_number(w[1]), to_number(w[2]), &found);

	say("value=%#x", found);
	return result;
}

long do_feature(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_feature(vf, to_number(w[1]));
}

long do_export(char **w)
{
	WANT(vf, w[0], VFIO);
	uint64_t size;
	long fd = vfio_export(vf, to_number(w[1]), w[4] ? to_number(w[4]) : 0, strcmp(w[2], "-") ? w[2] : "", &size);

	if (fd < 0)
		return fd;
	struct object *dmabuf = object_create(w[3], DMABUF);

	dmabuf->fd = fd;
	dmabuf->size = size;
	say("fd=%ld size=%#llx", fd, (unsigned long long)size);
	return 0;
}

/* set-feature VF NUMBER BYTES OBJECT|- [VALUE]: a feature whose data are a descriptor, or none that is one, and a value */
long do_set_feature(char **w)
{
	WANT(vf, w[0], VFIO);
	struct object *data = object_named(w[3]);
	int fd = data ? data->fd : -1;

	if (fd < 0 && strcmp(w[3], "-"))
		return -ENXIO;
	return vfio_set_feature(vf, to_number(w[1]), to_number(w[2]), fd, w[4] ? to_number(w[4]) : 0);
}

/* release VF: close its device, and then what it was reached by */
long do_release(char **w)
{
	WANT(vf, w[0], VFIO);
	object_unmap(vf);
	long device = object_close_fd(&vf->fd), group = object_close_fd(&vf->group), container = object_close_fd(&vf->container);

	return device ? device : group ? group : container;
}

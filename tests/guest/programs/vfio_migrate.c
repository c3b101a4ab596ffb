// SPDX-License-Identifier: MIT
/*
 * Moves a VF to another through VFIO's migration interface: a virtual machine monitor's part, and the little of a VF
 * driver's that it takes to see what arrives.
 *
 *	vfio_migrate SOURCE TARGET
 *
 * Both are PCI addresses of VFs that are bound to xe-vfio-pci and have as much GGTT and VRAM as each other.  Reports TAP;
 * exit code 0 when all passed, 1 when some failed, 2 when it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB 1048576u
#define DOORBELL 0x1901f0
#define MAILBOX 0x190240
#define GSM (8 * MIB)
#define SUCCESS 0xf0000000u
#define VF_MIGRATED 0xe0000107u
#define PAGE_NUMBER 5 /* of the VF's GGTT, with an entry to be found again */

static unsigned number, failed;

struct function {
	const char *bdf;
	int device;
	volatile uint32_t *bar0, *bar2;
	uint32_t ggtt;
};

static void stop(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

static void report(bool passed, const char *name)
{
	printf("%sok %u - %s\n", passed ? "" : "not ", ++number, name);
	fflush(stdout);
	failed += !passed;
}

static volatile uint32_t *map_bar(int device, unsigned index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		stop("region info");
	void *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	if (bar == MAP_FAILED)
		stop("mapping a BAR");
	return bar;
}

/*
 * A request to the GuC by the mailbox; its first dword, and the second in `answer`.  A mailbox of zeros has lost it to
 * the reset that opening the function is: then it is sent again, as the driver does (xe_guc.c:xe_guc_mmio_send_recv).
 */
static uint32_t request(struct function *vf, uint32_t action, uint32_t dw1, uint32_t dw2, uint32_t *answer)
{
	uint32_t words[] = { action, dw1, dw2, 0 }, first = 0;

	for (unsigned i = 0; i < 5000 && !(first >> 31); i++) {
		if (!first) {
			for (unsigned n = 0; n < 4; n++)
				vf->bar0[MAILBOX / 4 + n] = words[n];
			vf->bar0[DOORBELL / 4] = 0;
		}
		usleep(1000);
		first = vf->bar0[MAILBOX / 4];
	}
	if (!(first >> 31)) {
		printf("# %s: request %#x is not answered\n", vf->bdf, action);
		return 0;
	}
	if (answer)
		*answer = vf->bar0[MAILBOX / 4 + 1];
	return first;
}

static struct function open_vf(const char *bdf)
{
	struct function vf = { .bdf = bdf };
	char path[128], link[256];
	int container = open("/dev/vfio/vfio", O_RDWR);

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		stop("no IOMMU group");
	link[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	int group = open(path, O_RDWR);
	if (group < 0)
		stop(path);
	if (container < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		stop("no VFIO container with a type 1 IOMMU");
	vf.device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (vf.device < 0)
		stop("opening the function");
	vf.bar0 = map_bar(vf.device, VFIO_PCI_BAR0_REGION_INDEX);
	vf.bar2 = map_bar(vf.device, VFIO_PCI_BAR2_REGION_INDEX);
	if (request(&vf, 0x5507, 0, 0, NULL) != SUCCESS)
		stop("VF_RESET is refused");
	if (request(&vf, 0x5509, 0x0001, 0, &vf.ggtt) != (SUCCESS | 2))
		stop("the VF's GGTT is not known");
	printf("# %s: GGTT at %#x\n", bdf, vf.ggtt);
	return vf;
}

static volatile uint32_t *entry(struct function *vf)
{
	return vf->bar0 + (GSM + (vf->ggtt / 4096 + PAGE_NUMBER) * 8) / 4;
}

static uint64_t migration_flags(struct function *vf)
{
	char buffer[sizeof(struct vfio_device_feature) + sizeof(struct vfio_device_feature_migration)] = { 0 };
	struct vfio_device_feature *feature = (void *)buffer;
	struct vfio_device_feature_migration *migration = (void *)feature->data;

	feature->argsz = sizeof(buffer);
	feature->flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION;
	return ioctl(vf->device, VFIO_DEVICE_FEATURE, feature) ? 0 : migration->flags;
}

/* Returns the descriptor of the data, -1 when there is none to the state. */
static int set_state(struct function *vf, unsigned wanted, const char *name)
{
	char buffer[sizeof(struct vfio_device_feature) + sizeof(struct vfio_device_feature_mig_state)] = { 0 };
	struct vfio_device_feature *feature = (void *)buffer;
	struct vfio_device_feature_mig_state *state = (void *)feature->data;

	feature->argsz = sizeof(buffer);
	feature->flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
	state->device_state = wanted;
	state->data_fd = -1;
	bool done = ioctl(vf->device, VFIO_DEVICE_FEATURE, feature) == 0;
	if (!done)
		printf("# %s: %s\n", vf->bdf, strerror(errno));
	report(done, name);
	return state->data_fd;
}

static uint32_t pattern(unsigned place)
{
	return place * 2654435761u ^ 0x5a5a5a5a;
}

int main(int argc, char **argv)
{
	static const unsigned places[] = { 0, 5 * MIB, 16 * MIB - 4096 };
	size_t used = 0, size = 64 * MIB;
	char *data = malloc(size);

	if (argc != 3) {
		fprintf(stderr, "usage: vfio_migrate SOURCE TARGET\n");
		return 2;
	}
	struct function source = open_vf(argv[1]), target = open_vf(argv[2]);
	uint64_t wanted = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P;

	report((migration_flags(&source) & wanted) == wanted, "the source can be stopped and copied");
	report((migration_flags(&target) & wanted) == wanted, "so can the target");
	for (unsigned p = 0; p < sizeof(places) / sizeof(*places); p++)
		for (unsigned i = 0; i < 1024; i++)
			source.bar2[places[p] / 4 + i] = pattern(places[p] + i), target.bar2[places[p] / 4 + i] = 0;
	entry(&source)[0] = 0x5000 | 3;
	entry(&source)[1] = 0;

	int stream = set_state(&source, VFIO_DEVICE_STATE_STOP_COPY, "the source stops");
	for (ssize_t got; (got = read(stream, data + used, size - used)) != 0;) {
		if (got < 0)
			stop("reading the state");
		used += got;
	}
	printf("# %zu bytes\n", used);
	close(stream);
	set_state(&source, VFIO_DEVICE_STATE_STOP, "the source is saved");
	report(request(&source, 0x5509, 0x0001, 0, NULL) == 0, "and no longer served");

	stream = set_state(&target, VFIO_DEVICE_STATE_RESUMING, "the target takes a state");
	for (size_t given = 0; given < used;) {
		ssize_t put = write(stream, data + given, used - given);

		if (put < 0)
			stop("writing the state");
		given += put;
	}
	close(stream);
	set_state(&target, VFIO_DEVICE_STATE_RUNNING, "the target goes on");

	report(request(&target, 0x0508, 0x0901 << 16 | 2, target.ggtt, NULL) == VF_MIGRATED, "it is told that it moved");
	report(request(&target, 0x550f | 7 << 16, 0, 0, NULL) == SUCCESS, "it begins to mend its addresses");
	report(request(&target, 0x5508 | 7 << 16, 0, 0, NULL) == SUCCESS, "it has mended them");
	bool same = true;
	for (unsigned p = 0; p < sizeof(places) / sizeof(*places); p++)
		for (unsigned i = 0; i < 1024; i++)
			same &= target.bar2[places[p] / 4 + i] == pattern(places[p] + i);
	report(same, "its VRAM is the source's");
	report(entry(&target)[0] == (0x5000 | 3), "so are its GGTT entries");
	printf("1..%u\n", number);
	return failed ? 1 : 0;
}

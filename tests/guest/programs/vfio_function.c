// SPDX-License-Identifier: MIT
/*
 * Uses a function of the card from user space: a virtual machine monitor's part, without the virtual machine.
 *
 *	vfio_function 0000:01:00.1 OFFSET
 *
 * The function must be bound to vfio-pci.  Writes and reads BAR2 and, at OFFSET, BAR0; maps memory for DMA at IOVA
 * 0x1000000 and fills it with a pattern; then says "ready" and waits for an MSI; then resets the function and looks
 * whether the BARs still answer.  Reports TAP; exit code 0 when all passed, 1 when some failed, 2 when it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 16
#define IOVA 0x1000000ul
#define PATIENCE_MS 20000

static unsigned number, failed;

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

static int open_group(const char *bdf)
{
	char path[128], link[256];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		stop("no IOMMU group");
	link[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	int group = open(path, O_RDWR);
	if (group < 0)
		stop(path);
	return group;
}

static volatile uint32_t *map_bar(int device, unsigned index, uint64_t *size)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		stop("region info");
	void *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	if (bar == MAP_FAILED)
		stop("mapping a BAR");
	*size = info.size;
	return bar;
}

static int wire_msi(int device)
{
	char buffer[sizeof(struct vfio_irq_set) + sizeof(int)];
	struct vfio_irq_set *set = (void *)buffer;
	int event = eventfd(0, 0);

	*set = (struct vfio_irq_set){
		.argsz = sizeof(buffer),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSI_IRQ_INDEX,
		.count = 1,
	};
	memcpy(set->data, &event, sizeof(event));
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, set))
		stop("wiring MSI");
	return event;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: vfio_function BDF OFFSET\n");
		return 2;
	}
	unsigned long offset = strtoul(argv[2], NULL, 0);
	int container = open("/dev/vfio/vfio", O_RDWR);
	int group = open_group(argv[1]);
	if (container < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		stop("no VFIO container with a type 1 IOMMU");
	int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
	if (device < 0)
		stop("opening the function");

	uint64_t size0, size2;
	volatile uint32_t *bar0 = map_bar(device, VFIO_PCI_BAR0_REGION_INDEX, &size0);
	volatile uint32_t *bar2 = map_bar(device, VFIO_PCI_BAR2_REGION_INDEX, &size2);
	printf("# BAR0 %llu MiB, BAR2 %llu MiB\n", size0 / 1048576ull, size2 / 1048576ull);

	bar0[offset / 4] = 0x5ca1ab1e;
	report(bar0[offset / 4] == 0x5ca1ab1e, "a register in BAR0 keeps its value");
	for (unsigned i = 0; i < PAGE / 4; i++)
		bar2[i] = i * 2654435761u;
	bool same = true;
	for (unsigned i = 0; i < PAGE / 4; i++)
		same &= bar2[i] == i * 2654435761u;
	report(same, "a page of BAR2 keeps what was written");

	uint8_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	for (unsigned i = 0; i < PAGES * PAGE; i++)
		memory[i] = i >> 12 ^ i;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory,
		.iova = IOVA,
		.size = PAGES * PAGE,
	};
	report(ioctl(container, VFIO_IOMMU_MAP_DMA, &map) == 0, "memory is mapped for DMA");

	/* Bus mastering, as a driver would switch it on. */
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config);
	uint16_t command = 0x6;
	report(pwrite(device, &command, 2, config.offset + 4) == 2, "bus mastering is switched on");

	int event = wire_msi(device);
	printf("ready\n");
	fflush(stdout);
	struct pollfd wait = { .fd = event, .events = POLLIN };
	report(poll(&wait, 1, PATIENCE_MS) == 1, "the MSI arrives");

	report(ioctl(device, VFIO_DEVICE_RESET) == 0, "the function resets");
	report(bar0[offset / 4] == 0, "after the reset the register is cleared");
	bar2[1] = 0xfeedface;
	report(bar2[1] == 0xfeedface, "after the reset BAR2 answers");
	printf("1..%u\n", number);
	return failed ? 1 : 0;
}

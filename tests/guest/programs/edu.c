// SPDX-License-Identifier: MIT
/*
 * Drives the edu device from user space: registers, interrupts by MSI, DMA both ways through the IOMMU.
 *
 *	edu 0000:01:00.0
 *
 * The device must be bound to vfio-pci.  Reports TAP; exit code 0 when all passed, 1 when some failed, 2 when it could
 * not run.  The device is documented in QEMU's docs/specs/edu.rst, VFIO in the kernel's Documentation/driver-api/vfio.rst.
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

enum {
	IDENTIFICATION = 0x00,
	LIVENESS = 0x04,
	FACTORIAL = 0x08,
	STATUS = 0x20,
	INTERRUPT_STATUS = 0x24,
	INTERRUPT_RAISE = 0x60,
	INTERRUPT_ACKNOWLEDGE = 0x64,
	DMA_SOURCE = 0x80,
	DMA_DESTINATION = 0x88,
	DMA_COUNT = 0x90,
	DMA_COMMAND = 0x98,
	BUFFER = 0x40000,
};

enum { COMPUTING = 0x01, INTERRUPT_WHEN_COMPUTED = 0x80 };
enum { START = 0x01, TO_GUEST = 0x02, INTERRUPT_WHEN_COPIED = 0x04, DMA_INTERRUPT = 0x100 };

#define PAGE 4096ul
#define PAGES 64
#define IOVA 0x1000000ul
#define PATIENCE_MS 10000

static int container, device, interrupt;
static volatile uint8_t *bar;
static uint8_t *memory; /* PAGES pages, mapped at IOVA */
static unsigned number, failed;

static void stop(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint32_t get(unsigned offset)
{
	return *(volatile uint32_t *)(bar + offset);
}

static void put(unsigned offset, uint32_t value)
{
	*(volatile uint32_t *)(bar + offset) = value;
}

static void put64(unsigned offset, uint64_t value)
{
	*(volatile uint64_t *)(bar + offset) = value;
}

static bool interrupted(int timeout_ms)
{
	struct pollfd wait = { .fd = interrupt, .events = POLLIN };
	uint64_t count;

	return poll(&wait, 1, timeout_ms) == 1 && read(interrupt, &count, sizeof(count)) == sizeof(count);
}

static bool clears(unsigned offset, uint32_t bits)
{
	for (int tries = 0; tries < PATIENCE_MS; tries++, usleep(1000))
		if (!(get(offset) & bits))
			return true;
	return false;
}

static bool dma(uint64_t source, uint64_t destination, uint64_t count, uint32_t command)
{
	put64(DMA_SOURCE, source);
	put64(DMA_DESTINATION, destination);
	put64(DMA_COUNT, count);
	put(DMA_COMMAND, command | START);
	return clears(DMA_COMMAND, START);
}

static bool map(void *address, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_map argument = {
		.argsz = sizeof(argument),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)address,
		.iova = iova,
		.size = size,
	};

	return ioctl(container, VFIO_IOMMU_MAP_DMA, &argument) == 0;
}

static bool unmap(uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap argument = { .argsz = sizeof(argument), .iova = iova, .size = size };

	return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &argument) == 0;
}

static void fill(uint8_t *bytes, size_t count, unsigned seed)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = seed = seed * 1103515245 + 12345;
}

static void report(bool passed, const char *name)
{
	printf("%sok %u - %s\n", passed ? "" : "not ", ++number, name);
	failed += !passed;
}

/* The checks, in the order in which they run. */

static bool identification_is_that_of_the_documentation(void)
{
	return get(IDENTIFICATION) == 0x010000ed;
}

static bool liveness_inverts(void)
{
	put(LIVENESS, 0x12345678);
	return get(LIVENESS) == ~0x12345678u;
}

static bool factorial_is_computed(void)
{
	put(STATUS, 0);
	put(FACTORIAL, 10);
	return clears(STATUS, COMPUTING) && get(FACTORIAL) == 3628800 && !interrupted(0);
}

static bool factorial_interrupts(void)
{
	put(STATUS, INTERRUPT_WHEN_COMPUTED);
	put(FACTORIAL, 5);
	bool came = interrupted(PATIENCE_MS);
	uint32_t status = get(INTERRUPT_STATUS), result = get(FACTORIAL);
	put(INTERRUPT_ACKNOWLEDGE, status);
	put(STATUS, 0);
	return came && status == 1 && result == 120 && get(INTERRUPT_STATUS) == 0;
}

static bool raised_interrupts_arrive_one_by_one(void)
{
	for (unsigned i = 0; i < 32; i++) {
		put(INTERRUPT_RAISE, 1u << i);
		if (!interrupted(PATIENCE_MS) || get(INTERRUPT_STATUS) != 1u << i)
			return false;
		put(INTERRUPT_ACKNOWLEDGE, 1u << i);
	}
	return !interrupted(0);
}

static bool dma_goes_both_ways(void)
{
	uint8_t *from = memory, *to = memory + 8 * PAGE;

	fill(from, PAGE, 1);
	memset(to, 0, PAGE);
	return dma(IOVA, BUFFER, PAGE, 0) && dma(BUFFER, IOVA + 8 * PAGE, PAGE, TO_GUEST) && !memcmp(from, to, PAGE);
}

static bool dma_interrupts_when_it_is_done(void)
{
	uint8_t *to = memory + 3 * PAGE;

	fill(memory, 100, 2);
	memset(to, 0, PAGE);
	dma(IOVA, BUFFER + 50, 100, INTERRUPT_WHEN_COPIED);
	bool first = interrupted(PATIENCE_MS) && get(INTERRUPT_STATUS) == DMA_INTERRUPT;
	put(INTERRUPT_ACKNOWLEDGE, DMA_INTERRUPT);
	put64(DMA_SOURCE, BUFFER + 50);
	put64(DMA_DESTINATION, IOVA + 3 * PAGE);
	put(DMA_COMMAND, START | TO_GUEST | INTERRUPT_WHEN_COPIED);
	bool second = interrupted(PATIENCE_MS) && get(INTERRUPT_STATUS) == DMA_INTERRUPT;
	put(INTERRUPT_ACKNOWLEDGE, DMA_INTERRUPT);
	return first && second && !memcmp(memory, to, 100) && to[100] == 0;
}

static bool dma_crosses_pages_that_lie_apart(void)
{
	uint64_t iova = 0x2000000;
	uint8_t *low = memory + 20 * PAGE, *high = memory + 11 * PAGE;

	if (!map(low, iova, PAGE) || !map(high, iova + PAGE, PAGE))
		return false;
	memset(low, 0, PAGE);
	memset(high, 0, PAGE);
	fill(memory, PAGE, 3);
	bool done = dma(IOVA, BUFFER, PAGE, 0) && dma(BUFFER, iova + PAGE / 2, PAGE, TO_GUEST);
	unmap(iova, 2 * PAGE);
	return done && !memcmp(low + PAGE / 2, memory, PAGE / 2) && !memcmp(high, memory + PAGE / 2, PAGE / 2) && !low[0] &&
	       !high[PAGE / 2];
}

static bool dma_to_what_is_not_mapped_ends_and_changes_nothing(void)
{
	uint8_t *to = memory + 5 * PAGE;

	fill(memory, 16, 4);
	memset(to, 0, PAGE);
	bool ended = dma(IOVA, BUFFER, 16, 0) && dma(0x8000000, BUFFER, 16, 0) && dma(BUFFER, 0x8000000, 16, TO_GUEST);
	return ended && dma(BUFFER, IOVA + 5 * PAGE, 16, TO_GUEST) && !memcmp(memory, to, 16);
}

static bool dma_does_not_reach_what_was_unmapped(void)
{
	uint64_t iova = 0x3000000;
	uint8_t *page = memory + 30 * PAGE;

	memset(page, 0, PAGE);
	fill(memory, PAGE, 5);
	if (!map(page, iova, PAGE) || !dma(IOVA, BUFFER, PAGE, 0) || !dma(BUFFER, iova, PAGE, TO_GUEST))
		return false;
	bool reached = !memcmp(page, memory, PAGE);
	if (!unmap(iova, PAGE))
		return false;
	memset(page, 0xee, PAGE);
	bool ended = dma(BUFFER, iova, PAGE, TO_GUEST);
	for (unsigned i = 0; i < PAGE; i++)
		if (page[i] != 0xee)
			return false;
	return reached && ended;
}

static bool hundreds_of_mappings_come_and_go(void)
{
	uint8_t *page = memory + 40 * PAGE;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t iova = 0x4000000 + i * 3 * PAGE;

		fill(memory, 64, i);
		memset(page, 0, 64);
		if (!map(page, iova, PAGE) || !dma(IOVA, BUFFER, 64, 0) || !dma(BUFFER, iova, 64, TO_GUEST) ||
		    memcmp(page, memory, 64) || !unmap(iova, PAGE))
			return false;
	}
	return true;
}

static bool no_dma_without_bus_mastering(void)
{
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	uint8_t *to = memory + 6 * PAGE;
	uint16_t command, without;

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) || pread(device, &command, 2, config.offset + 4) != 2)
		return false;
	without = command & ~4;
	fill(memory, 16, 6);
	memset(to, 0, PAGE);
	bool set = dma(IOVA, BUFFER, 16, 0) && pwrite(device, &without, 2, config.offset + 4) == 2;
	bool ended = dma(BUFFER, IOVA + 6 * PAGE, 16, TO_GUEST);
	bool nothing = !to[0] && !memcmp(to, to + 1, 15);
	bool back = pwrite(device, &command, 2, config.offset + 4) == 2;
	return set && ended && nothing && back && dma(BUFFER, IOVA + 6 * PAGE, 16, TO_GUEST) && !memcmp(to, memory, 16);
}

static void open_device(const char *address)
{
	char path[128], target[256];
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_region_info region = { .argsz = sizeof(region), .index = VFIO_PCI_BAR0_REGION_INDEX };
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	uint16_t command;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
	ssize_t length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		stop(path);
	target[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(target, '/') + 1);
	container = open("/dev/vfio/vfio", O_RDWR);
	int group = open(path, O_RDWR);
	if (container < 0 || group < 0)
		stop(container < 0 ? "/dev/vfio/vfio" : path);
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		stop("the group is not viable");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		stop("VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (device < 0)
		stop("VFIO_GROUP_GET_DEVICE_FD");
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config))
		stop("VFIO_DEVICE_GET_REGION_INFO");
	bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, region.offset);
	if (bar == MAP_FAILED)
		stop("mmap of BAR0");
	if (pread(device, &command, 2, config.offset + 4) != 2)
		stop("COMMAND");
	command |= 6; /* memory and bus master */
	if (pwrite(device, &command, 2, config.offset + 4) != 2)
		stop("COMMAND");
}

static void wire_interrupt(void)
{
	union {
		struct vfio_irq_set set;
		char bytes[sizeof(struct vfio_irq_set) + sizeof(int)];
	} argument = { .set = { .argsz = sizeof(argument.bytes),
				.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
				.index = VFIO_PCI_MSI_IRQ_INDEX,
				.count = 1 } };

	interrupt = eventfd(0, EFD_NONBLOCK);
	memcpy(argument.bytes + sizeof(argument.set), &interrupt, sizeof(int));
	if (interrupt < 0 || ioctl(device, VFIO_DEVICE_SET_IRQS, &argument.set))
		stop("VFIO_DEVICE_SET_IRQS");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s PCI-ADDRESS (of an edu device that is bound to vfio-pci)\n", argv[0]);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n");
	open_device(argv[1]);
	wire_interrupt();
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED || !map(memory, IOVA, PAGES * PAGE))
		stop("VFIO_IOMMU_MAP_DMA");
#define CHECK(name) report(name(), #name)
	CHECK(identification_is_that_of_the_documentation);
	CHECK(liveness_inverts);
	CHECK(factorial_is_computed);
	CHECK(factorial_interrupts);
	CHECK(raised_interrupts_arrive_one_by_one);
	CHECK(dma_goes_both_ways);
	CHECK(dma_interrupts_when_it_is_done);
	CHECK(dma_crosses_pages_that_lie_apart);
	CHECK(dma_to_what_is_not_mapped_ends_and_changes_nothing);
	CHECK(dma_does_not_reach_what_was_unmapped);
	CHECK(hundreds_of_mappings_come_and_go);
	CHECK(no_dma_without_bus_mastering);
	printf("1..%u\n", number);
	return failed ? 1 : 0;
}

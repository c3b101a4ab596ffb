// SPDX-License-Identifier: MIT
/*
 * The VMM's part of a virtual machine that has a VF (docs/virtual-machine-frames.md), as QEMU has it for a passed-through VF whose
 * surfaces are virtio-gpu blobs: it opens the VF by VFIO, gets dma-bufs of the pieces of VRAM that the machine names, hands them to a
 * compositor, and resets the VF when the machine was reset.
 *
 *   xe-vmm NAME ADDRESS COMPOSITOR [MS [iommufd]]
 *
 * NAME is that of the virtio serial port to the machine and of the window, ADDRESS the VF's, COMPOSITOR a UNIX socket. MS is how long the
 * compositor may take to let go of buffers (2000); then the kernel has to. With `iommufd` the VF is opened by its character device and attached
 * to an address space of iommufd, else by its group and a type 1 container.
 * SIGUSR1: the machine was reset. SIGTERM: it is switched off. Standard output is a log, a line an event.
 */
#define _GNU_SOURCE
#include "vmm.h"

#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

#define AGAIN_MS 200

void log_line(struct vmm *vmm, const char *format, ...)
{
	uint64_t now = now_ns();
	va_list arguments;

	printf("%llu.%03llu %s ", (unsigned long long)(now / 1000000000), (unsigned long long)(now / 1000000 % 1000), vmm->name);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
}

/* The VF is passed on from now on: it may use the bus. */
static long pass_on(struct vmm *vmm)
{
	uint32_t command;
	long result = vfio_config_read(&vmm->vf, PCI_COMMAND, 2, &command);

	if (result == 0)
		result = vfio_config_write(&vmm->vf, PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return result;
}

static long request_interrupt(struct vmm *vmm, int event)
{
	struct {
		struct vfio_irq_set set;
		int fd;
	} wanted = {
		.set = {
			.argsz = sizeof(wanted),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_REQ_IRQ_INDEX,
			.count = 1,
		},
		.fd = event,
	};

	return call(vmm->vf.fd, VFIO_DEVICE_SET_IRQS, &wanted);
}

/* What the machine had is taken back, whatever the compositor says. */
static void take_back(struct vmm *vmm, const char *reason)
{
	bool released = compositor_revoke(vmm, reason, vmm->release_ms);

	resources_close(vmm);
	vmm->lines = (struct lines){};
	log_line(vmm, "revoked reason=%s released=%d frames=%u done=%u", reason, released, vmm->sent, vmm->done);
}

static void reset(struct vmm *vmm)
{
	take_back(vmm, "reset");
	uint64_t started = now_ns();
	long result = vfio_reset(&vmm->vf);

	if (result == 0)
		result = pass_on(vmm);
	log_line(vmm, "reset result=%s ms=%llu", result ? strerrorname_np(-result) : "0",
		 (unsigned long long)((now_ns() - started) / 1000000));
}

/* Whether the program goes on. */
static bool signalled(struct vmm *vmm, int signals)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) != sizeof(info))
		return true;
	if (info.ssi_signo == SIGUSR1) {
		reset(vmm);
		return true;
	}
	take_back(vmm, "shutdown");
	return false;
}

static void serve(struct vmm *vmm, int signals, int request)
{
	bool there = true;

	for (;;) {
		struct pollfd ready[4 + FENCES] = {
			{ .fd = signals, .events = POLLIN },
			{ .fd = request, .events = POLLIN },
			{ .fd = there ? vmm->port : -1, .events = POLLIN },
			{ .fd = vmm->compositor, .events = POLLIN },
		};

		for (unsigned i = 0; i < FENCES; i++)
			ready[4 + i] = (struct pollfd){ .fd = vmm->fences[i].fd, .events = POLLIN };
		poll(ready, 4 + FENCES, AGAIN_MS);
		compositor_connect(vmm);
		if (ready[0].revents && !signalled(vmm, signals))
			return;
		if (ready[1].revents) {
			take_back(vmm, "removed");
			return;
		}
		if (ready[3].revents && vmm->compositor == ready[3].fd)
			compositor_read(vmm);
		for (unsigned i = 0; i < FENCES; i++)
			if (ready[4 + i].revents && vmm->fences[i].fd == ready[4 + i].fd)
				fence_signalled(vmm, &vmm->fences[i]);
		if (ready[2].revents & POLLIN)
			for (char *line; (line = lines_next(&vmm->lines, vmm->port));)
				machine_said(vmm, line);
		/* Hung up: no machine is at the other end. Looked at again later: it has no event for a machine that comes. */
		there = !(ready[2].revents & POLLHUP);
	}
}

int main(int count, char **words)
{
	static struct vmm vmm = { .compositor = -1 };
	sigset_t signals;

	struct object iommufd = { .kind = IOMMUFD };
	bool by_device = count == 6 && !strcmp(words[5], "iommufd");

	if (count < 4 || count > 6 || (count == 6 && !by_device)) {
		fprintf(stderr, "usage: xe-vmm NAME ADDRESS COMPOSITOR [MS [iommufd]]\n");
		return 2;
	}
	vmm.name = words[1];
	vmm.compositor_path = words[3];
	vmm.release_ms = count > 4 ? atoi(words[4]) : 2000;
	for (unsigned i = 0; i < FENCES; i++)
		vmm.fences[i].fd = -1;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC), request = eventfd(0, EFD_CLOEXEC);

	vmm.port = port_open(vmm.name);
	if (vmm.port < 0) {
		log_line(&vmm, "no port: %s", strerror(-vmm.port));
		return 1;
	}
	long result = by_device ? iommufd_open(&iommufd) : 0;

	if (result == 0)
		result = vfio_open(&vmm.vf, words[2], by_device ? &iommufd : NULL);
	if (result == 0)
		result = request_interrupt(&vmm, request);
	if (result == 0)
		result = pass_on(&vmm);
	if (result) {
		log_line(&vmm, "cannot open %s: %s", words[2], strerror(-result));
		return 1;
	}
	log_line(&vmm, "open bar2=%#llx", (unsigned long long)vmm.vf.region_size[2]);
	serve(&vmm, signal_fd, request);
	/* In this order, as QEMU has it: the device goes first, and with it what it lets be reached. */
	close(vmm.vf.fd);
	log_line(&vmm, "closed");
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The VMM's part of a virtual machine that has a VF: what QEMU does of it for virtio-gpu's blob scan-out. main.c explains. */
#ifndef VMM_H
#define VMM_H

#include "../client/client.h"

#define LINE 65536
#define RESOURCES 64
#define FENCES 64

/* What the virtual machine named: pieces of BAR2 in order, as a dma-buf of vfio-pci. */
struct resource {
	uint64_t id; /* 0: unused */
	int dmabuf;
	uint64_t size;
};

/* A `done` that waits for its fence before the virtual machine hears of it. */
struct fence {
	int fd; /* -1: unused */
	char line[1024];
};

/* A line at a time out of a stream. */
struct lines {
	char text[LINE];
	size_t length;
	bool overlong; /* the rest of a line that was too long is dropped */
};

struct vmm {
	const char *name;
	struct object vf;
	int port, compositor;
	const char *compositor_path;
	struct lines lines;
	struct resource resources[RESOURCES];
	struct fence fences[FENCES];
	char scanout[512]; /* the last, for a compositor that comes later */
	unsigned sent, done; /* frames */
	int release_ms; /* that the compositor has to let go */
};

/* port.c: the stream to the virtual machine. */
/* The next line without its newline, or NULL when there is none yet. Reads what is there. */
char *lines_next(struct lines *lines, int fd);
/* Sends a line, as far as the machine takes it: it cannot hold the VMM up. */
void port_send(struct vmm *vmm, const char *line);

/* surfaces.c: the messages of docs/virtual-machine-frames.md. */
/* A message of the virtual machine. */
void machine_said(struct vmm *vmm, char *line);
/* The dma-bufs are closed; the virtual machine has to begin anew. */
void resources_close(struct vmm *vmm);

/* compositor.c: the socket of the compositor. */
/* Connects when there is no connection and tells of what there is. */
void compositor_connect(struct vmm *vmm);
/* Sends a message with a descriptor, or none (-1). */
bool compositor_send(struct vmm *vmm, const char *line, int fd);
/* A message is there. */
void compositor_read(struct vmm *vmm);
/* A fence is signalled. */
void fence_signalled(struct vmm *vmm, struct fence *fence);
void fences_forget(struct vmm *vmm);
/* Tells the compositor that all buffers are about to go, and waits for its answer; whether it came within `ms`. */
bool compositor_revoke(struct vmm *vmm, const char *reason, int ms);

/* A line of the log: seconds, name, text. */
void log_line(struct vmm *vmm, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

/* SPDX-License-Identifier: MIT */
/* What the parts of the client share; main.c explains the client. */
#ifndef CLIENT_H
#define CLIENT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ull
#define REGIONS 9

enum kind { NOTHING, VFIO, DMABUF, GPU, BO, IOMMUFD, STREAM };

/* A thing that a command made and later commands name. */
struct object {
	char name[32];
	enum kind kind;
	int fd; /* -1 when it has none, or it was closed */
	/* VFIO */
	int container, group;
	uint64_t region_offset[REGIONS], region_size[REGIONS];
	uint8_t *bar2;
	/* GPU: a render node, one VM, one queue on its first copy engine */
	uint32_t vm, queue;
	bool long_running;
	struct code *code;
	struct compute *compute; /* NULL until a kernel is run */
	/* IOMMUFD */
	uint32_t ioas;
	/* BO: a buffer of `gpu`, or what was imported there */
	struct object *gpu;
	uint32_t handle;
	uint64_t size, va;
	uint8_t *map;
};

/* What a command reports beside its result: "key=value" after "# ". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);
/* ioctl(); 0 or more, or a negative errno value. */
long call(int fd, unsigned long request, void *argument);
long ioctl_value(int fd, unsigned long request, unsigned long value);

/* The bytes that `fill` writes and `verify` expects: a word of its own at each offset of the VF's BAR. */
static inline uint32_t pattern(uint64_t offset, uint32_t seed)
{
	return (uint32_t)(offset / 4) * 2654435761u ^ seed;
}

/* pattern.c */
void pattern_write(volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed);
/* 0, or -EILSEQ after saying where and how it differs. */
long pattern_check(const volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed);

#define MOST_LINE 4096
#define WORDS 16
#define TOO_MANY (WORDS + 1)
#define NOTES 2048

extern __thread char notes[NOTES];

/* commands.c */
/* Cuts the line at its spaces; returns how many words there are, and ends them with NULL. TOO_MANY: more than WORDS. */
unsigned split(char *line, char **words);
/* Runs a command; 0 or a negative errno value. */
long run_words(char **words, unsigned count);
void print_usage(FILE *file);

/* vfio.c: 0 or a negative errno value. */
/* `where`: another VF, whose container it joins, or an iommufd, whose address space it is attached to; NULL: a container of its own. */
long vfio_open(struct object *vf, const char *address, const struct object *where);
/* Map the VF's BAR2 from `offset` on into its container (VFIO_IOMMU_MAP_DMA), and unmap. */
long vfio_map(struct object *vf, uint64_t iova, uint64_t offset, uint64_t length);
long vfio_unmap(struct object *vf, uint64_t iova, uint64_t length);
long vfio_reset(struct object *vf);
long vfio_config_write(struct object *vf, uint32_t offset, uint32_t size, uint32_t value);
long vfio_config_read(struct object *vf, uint32_t offset, uint32_t size, uint32_t *value);
/* Does a feature (VFIO_DEVICE_FEATURE_...) with these flags and no data. */
long vfio_feature(struct object *vf, uint32_t flags);
/* Sets a feature whose data are a descriptor, or -1, and a value: as much of that as `bytes` says. */
long vfio_set_feature(struct object *vf, uint32_t number, uint32_t bytes, int fd, uint32_t value);
/* The dma-buf's descriptor, or a negative errno value. */
long vfio_export(struct object *vf, uint32_t region, uint32_t flags, const char *ranges, uint64_t *size);

/* views.c: a dma-buf in this process's memory; 0 or a negative errno value. */
long view_map(int dmabuf, uint64_t size, struct object *view);
/* Reads a dword; -EFAULT: SIGBUS. */
long view_touch(struct object *view, uint64_t at, uint32_t *word);

/* iommufd.c: 0 or a negative errno value. An I/O address space without devices: what it maps is held all the same. */
long iommufd_open(struct object *iommufd);
long iommufd_map(struct object *iommufd, int dmabuf, uint64_t iova, uint64_t length);
long iommufd_unmap(struct object *iommufd, uint64_t iova, uint64_t length);

/* gpu.c: 0 or a negative errno value. */
/* `mode`: NULL, "lr" (long-running), or "svm" (fault mode, with this process's addresses mirrored). */
long gpu_open(struct object *gpu, const char *address, const char *mode);
/* The descriptor of the render node of the device at `address`. */
int open_render_node(const char *address);
void gpu_unmap_code(struct object *gpu);
long gpu_buffer(struct object *gpu, struct object *bo, uint64_t va, uint64_t size, bool vram);
long gpu_import(struct object *gpu, int dmabuf, struct object *bo);
long gpu_export(struct object *bo, struct object *dmabuf);
long gpu_bind(struct object *bo, uint64_t va, uint64_t offset, uint64_t length, unsigned pat);
long gpu_unbind(struct object *gpu, uint64_t va, uint64_t length);
long gpu_close_handle(struct object *bo);
/* Unmaps a buffer of this process and closes its handle. */
long gpu_unmap(struct object *bo);
/* Copies with the copy engine and waits; `nanoseconds` is from the exec to the fence. */
long gpu_copy(struct object *gpu, uint64_t to, uint64_t from, uint64_t length, uint64_t *nanoseconds);

/* Whether the queue is banned, as it is when a job of it failed (the fence says nothing of that): 0, or -EIO. */
long gpu_check_queue(struct object *gpu, uint32_t queue);

/* kernel.c: `groups` of 256 work items on execution units; waits for their end. */
long gpu_kernel(struct object *gpu, const char *name, uint64_t groups, uint64_t to, uint64_t from, uint32_t word);

/* engines.c: `rounds` jobs on every engine, compared; how many ended well, and a bit for each GT that has an engine. */
long gpu_engines(struct object *gpu, uint64_t rounds, unsigned *jobs, uint64_t *gts);
struct drm_xe_query_engines;
/* The caller frees `*answer`. */
long gpu_query_engines(int fd, struct drm_xe_query_engines **answer);
/* Runs the batch at `va` and waits for its end. */
long gpu_run(struct object *gpu, uint32_t queue, uint64_t va);

/* svm.c: anonymous memory of this process; where a GPU's VM in fault mode should have its pages. */
long svm_memory(struct object *bo, uint64_t size);
long svm_prefer(struct object *gpu, uint64_t va, uint64_t size, const char *where, struct object *other);

/* stream.c: packets of a compositor's socket (SOCK_SEQPACKET), lines of a virtio serial port; 0 or a negative errno value. */
/* The descriptor of the port of this name. */
int port_open(const char *name);
long stream_listen(struct object *listener, const char *path);
long stream_accept(struct object *listener, struct object *stream, unsigned ms);
/* Reports the packet's words; `*fd` is what came with it, or -1. */
long stream_receive(struct object *stream, unsigned ms, int *fd);
/* The same into `line`. */
long stream_packet(struct object *stream, unsigned ms, char *line, size_t size, int *fd);
long stream_send(struct object *stream, const char *line);
/* Reports the words of a line. */
long stream_hear(struct object *stream, unsigned ms);
/* The same into `line`, without its newline. */
long stream_line(struct object *stream, unsigned ms, char *line, size_t size);

/* pages.c: "offset+length,...": what of BAR2 of the device at `address` the pages of mapped memory are, in order. How many pieces. */
long pages_find(uint8_t *map, uint64_t size, const char *address, char *ranges, size_t length);

/* words.c: of a line, the value of `name=`, which ends at a blank, or NULL. */
const char *word_of(const char *line, const char *name);
/* The same as a number; false where there is no such word, or it is no number. */
bool number_of(const char *line, const char *name, uint64_t *value);
/* A word of a command as a number. What is none is kept for take_no_number(), as the command may have had no look at the result. */
uint64_t to_number(const char *word);
/* The last word of this thread's command that is no number, or NULL; forgets it. */
const char *take_no_number(void);
/* Writes the words with a blank between them; whether there was room. */
bool join_words(char *line, size_t size, char **words);

/* raw.c: calls with any bytes; see there how they are written. Slots keep what calls gave. */
long raw_keep(const char *slot, int fd);
long raw_poke(uint64_t offset, const char *data);
/* `keep` (or NULL) is the slot for the dword at byte `from` of what came back, or for the call's own "result". */
long raw_ioctl(const char *descriptor, uint64_t request, const char *data, const char *keep, const char *from);
long raw_close(const char *slot);

/* kexec.c: starts another kernel; returns only when that fails. */
long start_kernel(const char *kernel, const char *initrd, const char *line_file);

#endif

// SPDX-License-Identifier: MIT
/* The client's commands: what they make has a name, and later commands use it. Each returns 0 or a negative errno. */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#define OBJECTS 96

static struct object objects[OBJECTS];

/* A command that runs in a thread of its own. */
struct job {
	char name[32], command[MOST_LINE], notes[NOTES];
	pthread_t thread;
	long result;
	volatile bool done, stop, used;
};

static struct job jobs[16];
static __thread struct job *current;

void pattern_write(volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed)
{
	volatile uint32_t *words = memory;

	for (uint64_t i = 0; i < length / 4; i++)
		words[i] = pattern(offset + 4 * i, seed);
}

long pattern_check(const volatile void *memory, uint64_t offset, uint64_t length, uint32_t seed)
{
	const volatile uint32_t *words = memory;
	uint64_t wrong = 0, first = 0;

	for (uint64_t i = 0; i < length / 4; i++)
		if (words[i] != pattern(offset + 4 * i, seed) && !wrong++)
			first = i;
	if (!wrong)
		return 0;
	say("wrong=%llu first=%#llx found=%#x expected=%#x", (unsigned long long)wrong, (unsigned long long)(4 * first),
	    words[first], pattern(offset + 4 * first, seed));
	return -EILSEQ;
}

static struct object *find(const char *name, enum kind kind)
{
	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind == kind && !strcmp(o->name, name))
			return o;
	say("what=no_such_object name=%s", name);
	return NULL;
}

/* A mapping of a dma-buf, or memory of this process: nothing else but its object leads to it. */
static void unmap_view(struct object *o)
{
	if (o->kind != BO || o->gpu || !o->map)
		return;
	munmap(o->map, o->size);
	o->map = NULL;
}

static struct object *create(const char *name, enum kind kind)
{
	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind != NOTHING && !strcmp(o->name, name)) {
			unmap_view(o);
			o->kind = NOTHING;
		}
	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind == NOTHING) {
			*o = (struct object){ .kind = kind, .fd = -1, .container = -1, .group = -1 };
			snprintf(o->name, sizeof(o->name), "%s", name);
			return o;
		}
	abort();
}

/* A word of this thread's command that should have been a number. */
static __thread const char *no_number;

static uint64_t value(const char *word)
{
	char *end;
	uint64_t found = strtoull(word, &end, 0);

	if (end == word || *end)
		no_number = word;
	return found;
}

/* Commands ----------------------------------------------------------------------------------------------------- */

#define WANT(variable, name, kind)                                                                                     \
	struct object *variable = find(name, kind);                                                                    \
	if (!variable)                                                                                                 \
		return -ENXIO

/* vfio NAME ADDRESS [VF|IOMMUFD] */
static long do_vfio(char **w)
{
	struct object *where = NULL;

	for (struct object *o = objects; w[2] && o < objects + OBJECTS; o++)
		if ((o->kind == VFIO || o->kind == IOMMUFD) && !strcmp(o->name, w[2]))
			where = o;
	if (w[2] && !where)
		return -ENXIO;
	return vfio_open(create(w[0], VFIO), w[1], where);
}

/* dma-map VF IOVA OFFSET LENGTH: of its BAR2, for all devices of its container */
static long do_dma_map(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_map(vf, value(w[1]), value(w[2]), value(w[3]));
}

static long do_dma_unmap(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_unmap(vf, value(w[1]), value(w[2]));
}

static bool within(uint64_t size, uint64_t offset, uint64_t length)
{
	return offset <= size && length <= size - offset;
}

static bool inside(struct object *vf, uint64_t offset, uint64_t length)
{
	return within(vf->region_size[2], offset, length) && !(offset % 4) && !(length % 4);
}

static bool mapped(struct object *bo, uint64_t at, uint64_t length)
{
	return bo->map && within(bo->size, at, length);
}

static long do_fill(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, value(w[1]), value(w[2])))
		return -ERANGE;
	pattern_write(vf->bar2 + value(w[1]), value(w[1]), value(w[2]), value(w[3]));
	return 0;
}

static long do_check(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, value(w[1]), value(w[2])))
		return -ERANGE;
	return pattern_check(vf->bar2 + value(w[1]), value(w[1]), value(w[2]), value(w[3]));
}

static long do_peek(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, value(w[1]), 4))
		return -ERANGE;
	say("value=%#x", *(volatile uint32_t *)(vf->bar2 + value(w[1])));
	return 0;
}

/* clean VF OFFSET LENGTH: nothing is there, as after a reset */
static long do_clean(char **w)
{
	WANT(vf, w[0], VFIO);
	if (!inside(vf, value(w[1]), value(w[2])))
		return -ERANGE;
	const volatile uint32_t *words = (const volatile uint32_t *)(vf->bar2 + value(w[1]));

	for (uint64_t i = 0; i < value(w[2]) / 4; i++)
		if (words[i]) {
			say("first=%#llx found=%#x", (unsigned long long)(value(w[1]) + 4 * i), words[i]);
			return -EILSEQ;
		}
	return 0;
}

static long do_text(char **w)
{
	WANT(vf, w[0], VFIO);
	size_t length = strlen(w[2]);

	if (!inside(vf, value(w[1]), (length + 7) & ~3ull))
		return -ERANGE;
	memcpy(vf->bar2 + value(w[1]), w[2], length + 1);
	return 0;
}

static long do_reset(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_reset(vf);
}

/* Initiate Function Level Reset, in Device Control of the PCI Express capability (pci_regs.h). */
static long do_flr(char **w)
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

static long do_config(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_config_write(vf, value(w[1]), value(w[2]), value(w[3]));
}

static long do_read_config(char **w)
{
	WANT(vf, w[0], VFIO);
	uint32_t found;
	long result = vfio_config_read(vf, value(w[1]), value(w[2]), &found);

	say("value=%#x", found);
	return result;
}

static long do_feature(char **w)
{
	WANT(vf, w[0], VFIO);
	return vfio_feature(vf, value(w[1]));
}

static long do_export(char **w)
{
	WANT(vf, w[0], VFIO);
	uint64_t size;
	long fd = vfio_export(vf, value(w[1]), w[4] ? value(w[4]) : 0, strcmp(w[2], "-") ? w[2] : "", &size);

	if (fd < 0)
		return fd;
	struct object *dmabuf = create(w[3], DMABUF);

	dmabuf->fd = fd;
	dmabuf->size = size;
	say("fd=%ld size=%#llx", fd, (unsigned long long)size);
	return 0;
}

static long do_gpu(char **w)
{
	return gpu_open(create(w[0], GPU), w[1], w[2]);
}

static long do_buffer(char **w)
{
	WANT(gpu, w[0], GPU);
	return gpu_buffer(gpu, create(w[1], BO), value(w[2]), value(w[3]), w[4] && !strcmp(w[4], "vram"));
}

static long do_import(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(dmabuf, w[1], DMABUF);
	return gpu_import(gpu, dmabuf->fd, create(w[2], BO));
}

static long do_reexport(char **w)
{
	WANT(bo, w[0], BO);
	struct object *dmabuf = create(w[1], DMABUF);
	long result = gpu_export(bo, dmabuf);

	say("fd=%d", dmabuf->fd);
	return result;
}

/* bind BO VA [OFFSET LENGTH [PAT]] */
static long do_bind(char **w)
{
	WANT(bo, w[0], BO);
	uint64_t offset = w[2] ? value(w[2]) : 0, length = w[2] ? value(w[3]) : bo->size;

	return gpu_bind(bo, value(w[1]), offset, length, w[2] && w[4] ? value(w[4]) : 2);
}

static long do_unbind(char **w)
{
	WANT(gpu, w[0], GPU);
	return gpu_unbind(gpu, value(w[1]), value(w[2]));
}

static long do_gem_close(char **w)
{
	WANT(bo, w[0], BO);
	return gpu_close_handle(bo);
}

/* copy GPU TO FROM LENGTH [TIMES] */
static long do_copy(char **w)
{
	WANT(gpu, w[0], GPU);
	uint64_t times = w[4] ? value(w[4]) : 1, best = ~0ull, taken;
	long result = 0;

	for (uint64_t i = 0; i < times && result == 0; i++) {
		result = gpu_copy(gpu, value(w[1]), value(w[2]), value(w[3]), &taken);
		best = taken < best ? taken : best;
	}
	say("copy_us=%llu", (unsigned long long)(best / 1000));
	return result;
}

/* How often calls of one kind ended how. */
struct tally {
	struct { long result; unsigned count; } seen[8];
};

static void count(struct tally *tally, long result)
{
	for (unsigned i = 0; i < 8; i++)
		if (!tally->seen[i].count || tally->seen[i].result == result) {
			tally->seen[i].result = result;
			tally->seen[i].count++;
			return;
		}
}

static void say_tally(const struct tally *tally, const char *of)
{
	for (unsigned i = 0; i < 8 && tally->seen[i].count; i++)
		say("%s%s=%u", of, tally->seen[i].result ? strerrorname_np(-tally->seen[i].result) : "OK", tally->seen[i].count);
}

/* kernel GPU NAME GROUPS TO FROM WORD */
static long do_kernel(char **w)
{
	WANT(gpu, w[0], GPU);
	uint64_t started = now_ns();
	long result = gpu_kernel(gpu, w[1], value(w[2]), value(w[3]), value(w[4]), value(w[5]));

	say("kernel_us=%llu", (unsigned long long)((now_ns() - started) / 1000));
	return result;
}

/* loop copy|kernel ...: the command until it is stopped; how often it ended how */
static long do_loop(char **w)
{
	bool kernel = !strcmp(w[0], "kernel");
	struct tally tally = {};

	if (!current || !w[kernel ? 6 : 4] || w[kernel ? 7 : 5] || (!kernel && strcmp(w[0], "copy")))
		return -EINVAL;
	WANT(gpu, w[1], GPU);
	while (!current->stop) {
		uint64_t taken;
		long result = kernel ? gpu_kernel(gpu, w[2], value(w[3]), value(w[4]), value(w[5]), value(w[6])) :
				       gpu_copy(gpu, value(w[2]), value(w[3]), value(w[4]), &taken);

		count(&tally, result);
		if (result < 0)
			usleep(1000);
	}
	say_tally(&tally, "");
	return 0;
}

/* cycle GPU DMABUF VA: import, bind, unbind, close, until stopped */
static long do_cycle(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(dmabuf, w[1], DMABUF);
	struct tally imports = {}, binds = {}, unbinds = {}, closes = {};

	if (!current)
		return -EINVAL;
	while (!current->stop) {
		struct object bo = {};
		long result = gpu_import(gpu, dmabuf->fd, &bo);

		count(&imports, result);
		notes[0] = 0;
		if (result < 0)
			continue;
		result = gpu_bind(&bo, value(w[2]), 0, bo.size, 2);
		count(&binds, result);
		if (result == 0)
			count(&unbinds, gpu_unbind(gpu, value(w[2]), bo.size));
		count(&closes, gpu_close_handle(&bo));
	}
	say_tally(&imports, "import_");
	say_tally(&binds, "bind_");
	say_tally(&unbinds, "unbind_");
	say_tally(&closes, "close_");
	return 0;
}

/* again COMMAND...: until stopped; how often it ended how */
static long do_again(char **w)
{
	struct tally tally = {};
	unsigned length = 0;

	if (!current)
		return -EINVAL;
	while (w[length])
		length++;
	while (!current->stop) {
		count(&tally, run_words(w, length));
		notes[0] = 0;
	}
	say_tally(&tally, "");
	return 0;
}

static bool fail_nth(unsigned n)
{
	char text[16];
	int file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ssize_t done = file < 0 ? -1 : write(file, text, snprintf(text, sizeof(text), "%u", n));

	if (file >= 0)
		close(file);
	return done > 0;
}

/* Whether the n-th call that can be made to fail was reached; ends the injection. */
static bool failed_nth(void)
{
	char text[16] = "";
	int file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	bool reached = file >= 0 && read(file, text, sizeof(text) - 1) > 0 && !atoi(text);

	if (file >= 0)
		close(file);
	fail_nth(0);
	return reached;
}

/* fail-each import|bind GPU DMABUF VA: the first call within that can fail does, then the second, and so on, to the last */
static long do_fail_each(char **w)
{
	WANT(gpu, w[1], GPU);
	WANT(dmabuf, w[2], DMABUF);
	struct tally results = {};
	bool imports = !strcmp(w[0], "import"), reached = true;
	unsigned n;

	for (n = 1; reached && n < 500; n++) {
		struct object bo = {};
		long result = 0;

		if (!imports && (result = gpu_import(gpu, dmabuf->fd, &bo)))
			return result;
		if (!fail_nth(n))
			return -ENOENT;
		result = imports ? gpu_import(gpu, dmabuf->fd, &bo) : gpu_bind(&bo, value(w[3]), 0, bo.size, 2);
		reached = failed_nth();
		if (reached)
			count(&results, result);
		notes[0] = 0;
		if (!imports && result == 0)
			gpu_unbind(gpu, value(w[3]), bo.size);
		if (bo.handle)
			gpu_close_handle(&bo);
	}
	say("places=%u", n - 2);
	say_tally(&results, "");
	return 0;
}

/* engines GPU ROUNDS: jobs on every engine */
static long do_engines(char **w)
{
	WANT(gpu, w[0], GPU);
	unsigned jobs = 0;
	uint64_t gts = 0;
	long result = gpu_engines(gpu, value(w[1]), &jobs, &gts);

	say("jobs=%u gts=%d", jobs, __builtin_popcountll(gts));
	return result;
}

/* busy GPU: the same, until stopped or refused */
static long do_busy(char **w)
{
	WANT(gpu, w[0], GPU);
	unsigned jobs = 0;
	uint64_t gts = 0;
	long result = 0;

	if (!current)
		return -EINVAL;
	while (!current->stop && result == 0)
		result = gpu_engines(gpu, 1, &jobs, &gts);
	say("jobs=%u", jobs);
	return result;
}

static long do_memory(char **w)
{
	return svm_memory(create(w[0], BO), value(w[1]));
}

/* where BUFFER: its virtual address */
static long do_where(char **w)
{
	WANT(bo, w[0], BO);
	say("va=%#llx", (unsigned long long)bo->va);
	return 0;
}

/* prefer GPU MEMORY vram|system|OTHER-GPU */
static long do_prefer(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(memory, w[1], BO);
	struct object *other = NULL;

	if (strcmp(w[2], "vram") && strcmp(w[2], "system"))
		other = find(w[2], GPU);
	return svm_prefer(gpu, memory->va, memory->size, w[2], other);
}

static long do_kexec(char **w)
{
	return start_kernel(w[0], w[1], w[2]);
}

/* verify BUFFER AT OFFSET LENGTH SEED: bytes from AT on are those of the BAR's OFFSET */
static long do_verify(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, value(w[1]), value(w[3])))
		return -ERANGE;
	return pattern_check(bo->map + value(w[1]), value(w[2]), value(w[3]), value(w[4]));
}

static long do_paint(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, value(w[1]), value(w[3])))
		return -ERANGE;
	pattern_write(bo->map + value(w[1]), value(w[2]), value(w[3]), value(w[4]));
	return 0;
}

/* holds BUFFER AT LENGTH WORD: all of it is that dword */
static long do_holds(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, value(w[1]), value(w[2])))
		return -ERANGE;
	const uint32_t *words = (const uint32_t *)(bo->map + value(w[1]));

	for (uint64_t i = 0; i < value(w[2]) / 4; i++)
		if (words[i] != (uint32_t)value(w[3])) {
			say("first=%#llx found=%#x", (unsigned long long)(4 * i), words[i]);
			return -EILSEQ;
		}
	return 0;
}

static long do_print(char **w)
{
	WANT(bo, w[0], BO);
	if (!mapped(bo, value(w[1]), 1))
		return -ERANGE;
	uint64_t left = bo->size - value(w[1]);

	say("text=%.*s", left < 200 ? (int)left : 200, (const char *)bo->map + value(w[1]));
	return 0;
}

static long do_poll(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	struct pollfd ready = { .fd = dmabuf->fd, .events = POLLOUT };

	return poll(&ready, 1, value(w[1])) == 1 ? 0 : -ETIME;
}

static long do_mmap(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	void *map = mmap(NULL, dmabuf->size, PROT_READ, MAP_SHARED, dmabuf->fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	munmap(map, dmabuf->size);
	return 0;
}

/* view DMABUF NAME: a mapping of it, which lives on without it; a buffer for `verify` and `paint` */
static long do_view(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	struct object made = {};
	long result = view_map(dmabuf->fd, dmabuf->size, &made);

	if (result == 0) {
		struct object *view = create(w[1], BO);

		view->map = made.map;
		view->size = made.size;
	}
	return result;
}

/* touch VIEW AT: reads a dword of a mapping that may have been revoked */
static long do_touch(char **w)
{
	WANT(view, w[0], BO);
	if (!mapped(view, value(w[1]), 4))
		return -ERANGE;
	uint32_t word = 0;
	long result = view_touch(view, value(w[1]), &word);

	if (result == 0)
		say("value=%#x", word);
	return result;
}

/* set-feature VF NUMBER BYTES OBJECT|- [VALUE]: a feature whose data are a descriptor, or none that is one, and a value */
static long do_set_feature(char **w)
{
	WANT(vf, w[0], VFIO);
	int fd = -1;

	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind != NOTHING && !strcmp(o->name, w[3]))
			fd = o->fd;
	if (fd < 0 && strcmp(w[3], "-"))
		return -ENXIO;
	return vfio_set_feature(vf, value(w[1]), value(w[2]), fd, w[4] ? value(w[4]) : 0);
}

/* A mapping holds the file of which it is one. */
static void unmap(struct object *o)
{
	if (o->kind == VFIO && o->bar2)
		munmap(o->bar2, o->region_size[2]);
	o->bar2 = NULL;
	unmap_view(o);
	if (o->kind != GPU)
		return;
	gpu_unmap_code(o);
	for (struct object *bo = objects; bo < objects + OBJECTS; bo++)
		if (bo->kind == BO && bo->gpu == o && bo->map) {
			munmap(bo->map, bo->size);
			bo->map = NULL;
		}
}

static long close_fd(int *fd)
{
	int closed = *fd;

	*fd = -1;
	return closed < 0 || close(closed) == 0 ? 0 : -errno;
}

/* Close the descriptor of a VF, dma-buf or GPU; what was mapped of it is unmapped before. Or unmap a view. */
static long do_close(char **w)
{
	for (struct object *o = objects; o < objects + OBJECTS; o++) {
		if (o->kind == NOTHING || strcmp(o->name, w[0]))
			continue;
		unmap(o);
		return close_fd(&o->fd);
	}
	return -ENXIO;
}

/* release VF: close its device, and then what it was reached by */
static long do_release(char **w)
{
	WANT(vf, w[0], VFIO);
	unmap(vf);
	long device = close_fd(&vf->fd), group = close_fd(&vf->group), container = close_fd(&vf->container);

	return device ? device : group ? group : container;
}

/* path DMABUF NAME: an O_PATH descriptor, which holds its inode and not its file */
static long do_path(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dmabuf->fd);
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	create(w[1], DMABUF)->fd = fd;
	return 0;
}

/* take PID FD NAME SIZE: a dma-buf of another process */
static long do_take(char **w)
{
	int process = syscall(SYS_pidfd_open, (pid_t)value(w[0]), 0);

	if (process < 0)
		return -errno;
	int fd = syscall(SYS_pidfd_getfd, process, (int)value(w[1]), 0);
	long result = fd < 0 ? -errno : 0;

	close(process);
	if (fd >= 0) {
		struct object *dmabuf = create(w[2], DMABUF);

		dmabuf->fd = fd;
		dmabuf->size = value(w[3]);
		say("fd=%d", fd);
	}
	return result;
}

/* device NAME PATH: any DRM device, to import into */
static long do_device(char **w)
{
	int fd = open(w[1], O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	create(w[0], GPU)->fd = fd;
	return 0;
}

static long do_iommufd(char **w)
{
	return iommufd_open(create(w[0], IOMMUFD));
}

/* ioas-map IOMMUFD DMABUF IOVA LENGTH */
static long do_ioas_map(char **w)
{
	WANT(iommufd, w[0], IOMMUFD);
	WANT(dmabuf, w[1], DMABUF);
	return iommufd_map(iommufd, dmabuf->fd, value(w[2]), value(w[3]));
}

static long do_ioas_unmap(char **w)
{
	WANT(iommufd, w[0], IOMMUFD);
	return iommufd_unmap(iommufd, value(w[1]), value(w[2]));
}

static long do_sleep(char **w)
{
	usleep(value(w[0]) * 1000);
	return 0;
}

static long do_exit(char **w)
{
	exit(value(w[0]));
}

/* listen NAME PATH: a compositor's socket */
static long do_listen(char **w)
{
	return stream_listen(create(w[0], STREAM), w[1]);
}

/* accept LISTENER NAME MS: the next source */
static long do_accept(char **w)
{
	WANT(listener, w[0], STREAM);
	return stream_accept(listener, create(w[1], STREAM), value(w[2]));
}

/* receive STREAM MS DMABUF: the next packet; the descriptor that it brings gets the name */
static long do_receive(char **w)
{
	WANT(stream, w[0], STREAM);
	int fd;
	long result = stream_receive(stream, value(w[1]), &fd);

	if (fd >= 0) {
		struct object *dmabuf = create(w[2], DMABUF);

		dmabuf->fd = fd;
		dmabuf->size = lseek(fd, 0, SEEK_END);
	}
	return result;
}

/* port NAME: the virtio serial port of this name */
static long do_port(char **w)
{
	int fd = port_open(w[0]);

	if (fd >= 0)
		create(w[0], STREAM)->fd = fd;
	return fd < 0 ? fd : 0;
}

/* The words with a blank between them; whether there is room. */
static bool joined(char *line, size_t size, char **w)
{
	size_t length = 0;

	for (line[0] = 0; *w && length < size; w++)
		length += snprintf(line + length, size - length, "%s%s", length ? " " : "", *w);
	return length < size;
}

/* tell STREAM WORDS...: a packet, or a line */
static long do_tell(char **w)
{
	WANT(stream, w[0], STREAM);
	char line[MOST_LINE];

	return joined(line, sizeof(line), w + 1) ? stream_send(stream, line) : -E2BIG;
}

/* hear PORT MS: the next line */
static long do_hear(char **w)
{
	WANT(stream, w[0], STREAM);
	return stream_hear(stream, value(w[1]));
}

/* pages BUFFER ADDRESS: where in the GPU's BAR2 the buffer is, which has to be in VRAM */
static long do_pages(char **w)
{
	WANT(bo, w[0], BO);
	char ranges[NOTES - 128];
	long pieces = bo->map ? pages_find(bo->map, bo->size, w[1], ranges, sizeof(ranges)) : -ERANGE;

	if (pieces > 0)
		say("pieces=%ld ranges=%s", pieces, ranges);
	return pieces < 0 ? pieces : 0;
}

/* raw-open SLOT ADDRESS: another descriptor of the device's render node */
static long do_raw_open(char **w)
{
	int fd = open_render_node(w[1]);

	return fd < 0 ? fd : raw_keep(w[0], fd);
}

/* raw-take SLOT DMABUF: another descriptor of it */
static long do_raw_take(char **w)
{
	WANT(dmabuf, w[1], DMABUF);
	int fd = fcntl(dmabuf->fd, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? -errno : raw_keep(w[0], fd);
}

static long do_raw_close(char **w)
{
	return raw_close(w[0]);
}

static long do_raw_poke(char **w)
{
	return raw_poke(value(w[0]), w[1]);
}

static long do_raw_ioctl(char **w)
{
	if (w[3] && !w[4])
		return -EINVAL;
	return raw_ioctl(w[0], value(w[1]), w[2], w[3], w[4]);
}

static long do_spawn(char **w);
static long do_join(char **w);
static long do_stop(char **w);

static const struct command {
	const char *name;
	long (*run)(char **words);
	unsigned least, most;
	const char *usage;
} commands[] = {
	{ "vfio", do_vfio, 2, 3, "NAME ADDRESS [VF|IOMMUFD]" },
	{ "dma-map", do_dma_map, 4, 4, "VF IOVA OFFSET LENGTH" },
	{ "dma-unmap", do_dma_unmap, 3, 3, "VF IOVA LENGTH" },
	{ "fill", do_fill, 4, 4, "VF OFFSET LENGTH SEED" },
	{ "check", do_check, 4, 4, "VF OFFSET LENGTH SEED" },
	{ "peek", do_peek, 2, 2, "VF OFFSET" },
	{ "clean", do_clean, 3, 3, "VF OFFSET LENGTH" },
	{ "text", do_text, 3, 3, "VF OFFSET WORD" },
	{ "reset", do_reset, 1, 1, "VF" },
	{ "flr", do_flr, 1, 1, "VF" },
	{ "config", do_config, 4, 4, "VF OFFSET SIZE VALUE" },
	{ "read-config", do_read_config, 3, 3, "VF OFFSET SIZE" },
	{ "feature", do_feature, 2, 2, "VF FLAGS" },
	{ "set-feature", do_set_feature, 4, 5, "VF NUMBER BYTES OBJECT|- [VALUE]" },
	{ "export", do_export, 4, 5, "VF REGION OFFSET+LENGTH,...|- NAME [FLAGS]" },
	{ "gpu", do_gpu, 2, 3, "NAME ADDRESS [lr|svm]" },
	{ "device", do_device, 2, 2, "NAME PATH" },
	{ "buffer", do_buffer, 4, 5, "GPU NAME VA SIZE [vram]" },
	{ "import", do_import, 3, 3, "GPU DMABUF NAME" },
	{ "reexport", do_reexport, 2, 2, "BUFFER NAME" },
	{ "bind", do_bind, 2, 5, "BUFFER VA [OFFSET LENGTH [PAT]]" },
	{ "unbind", do_unbind, 3, 3, "GPU VA LENGTH" },
	{ "gem-close", do_gem_close, 1, 1, "BUFFER" },
	{ "copy", do_copy, 4, 5, "GPU TO FROM LENGTH [TIMES]" },
	{ "kernel", do_kernel, 6, 6, "GPU NAME GROUPS TO FROM WORD" },
	{ "loop", do_loop, 5, 7, "copy GPU TO FROM LENGTH | kernel GPU NAME GROUPS TO FROM WORD" },
	{ "engines", do_engines, 2, 2, "GPU ROUNDS" },
	{ "busy", do_busy, 1, 1, "GPU" },
	{ "memory", do_memory, 2, 2, "NAME SIZE" },
	{ "where", do_where, 1, 1, "BUFFER" },
	{ "prefer", do_prefer, 3, 3, "GPU MEMORY vram|system|OTHER-GPU" },
	{ "kexec", do_kexec, 3, 3, "KERNEL INITRD FILE-WITH-COMMAND-MOST_LINE" },
	{ "cycle", do_cycle, 3, 3, "GPU DMABUF VA" },
	{ "again", do_again, 1, WORDS, "COMMAND..." },
	{ "fail-each", do_fail_each, 4, 4, "import|bind GPU DMABUF VA" },
	{ "verify", do_verify, 5, 5, "BUFFER AT OFFSET LENGTH SEED" },
	{ "paint", do_paint, 5, 5, "BUFFER AT OFFSET LENGTH SEED" },
	{ "holds", do_holds, 4, 4, "BUFFER AT LENGTH WORD" },
	{ "print", do_print, 2, 2, "BUFFER AT" },
	{ "poll", do_poll, 2, 2, "DMABUF MS" },
	{ "mmap", do_mmap, 1, 1, "DMABUF" },
	{ "view", do_view, 2, 2, "DMABUF NAME" },
	{ "touch", do_touch, 2, 2, "VIEW AT" },
	{ "close", do_close, 1, 1, "NAME" },
	{ "release", do_release, 1, 1, "VF" },
	{ "path", do_path, 2, 2, "DMABUF NAME" },
	{ "take", do_take, 4, 4, "PID FD NAME SIZE" },
	{ "iommufd", do_iommufd, 1, 1, "NAME" },
	{ "ioas-map", do_ioas_map, 4, 4, "IOMMUFD DMABUF IOVA LENGTH" },
	{ "ioas-unmap", do_ioas_unmap, 3, 3, "IOMMUFD IOVA LENGTH" },
	{ "listen", do_listen, 2, 2, "NAME PATH" },
	{ "accept", do_accept, 3, 3, "LISTENER NAME MS" },
	{ "receive", do_receive, 3, 3, "STREAM MS DMABUF" },
	{ "port", do_port, 1, 1, "NAME" },
	{ "tell", do_tell, 2, WORDS, "STREAM WORDS..." },
	{ "hear", do_hear, 2, 2, "PORT MS" },
	{ "pages", do_pages, 2, 2, "BUFFER ADDRESS" },
	{ "raw-open", do_raw_open, 2, 2, "SLOT ADDRESS" },
	{ "raw-take", do_raw_take, 2, 2, "SLOT DMABUF" },
	{ "raw-close", do_raw_close, 1, 1, "SLOT" },
	{ "raw-poke", do_raw_poke, 2, 2, "OFFSET DATA" },
	{ "raw-ioctl", do_raw_ioctl, 3, 5, "SLOT REQUEST DATA [SLOT BYTE|result]" },
	{ "spawn", do_spawn, 2, WORDS, "JOB COMMAND..." },
	{ "join", do_join, 2, 2, "JOB MS" },
	{ "stop", do_stop, 1, 1, "JOB" },
	{ "sleep", do_sleep, 1, 1, "MS" },
	{ "exit", do_exit, 1, 1, "CODE" },
};

unsigned split(char *line, char **words)
{
	unsigned count = 0;

	for (char *word = strtok_r(line, " ", &line); word; word = strtok_r(NULL, " ", &line)) {
		if (count == WORDS)
			return TOO_MANY;
		words[count++] = word;
	}
	for (unsigned i = count; i < WORDS + 1; i++)
		words[i] = NULL;
	return count;
}

long run_words(char **words, unsigned count)
{
	if (count == TOO_MANY)
		return -E2BIG;
	for (size_t i = 0; count && i < sizeof(commands) / sizeof(*commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, words[0]))
			continue;
		if (count - 1 < c->least || count - 1 > c->most) {
			say("usage=%s_%s", c->name, c->usage);
			return -E2BIG;
		}
		no_number = NULL;
		long result = c->run(words + 1);

		/* Also when it did something: with a 0 that nobody wrote it was something else. */
		if (!no_number)
			return result;
		say("no_number=%s", no_number);
		no_number = NULL;
		return -EINVAL;
	}
	say("what=no_such_command");
	return -ENOSYS;
}

void print_usage(FILE *file)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		fprintf(file, "  %s %s\n", commands[i].name, commands[i].usage);
}

static void *run_job(void *argument)
{
	struct job *job = argument;
	char line[sizeof(job->command)], *words[WORDS + 1];

	current = job;
	strcpy(line, job->command);
	uint64_t started = now_ns();

	job->result = run_words(words, split(line, words));
	say("us=%llu", (unsigned long long)((now_ns() - started) / 1000));
	memcpy(job->notes, notes, NOTES);
	__atomic_store_n(&job->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static struct job *find_job(const char *name)
{
	for (struct job *job = jobs; job < jobs + 16; job++)
		if (job->used && !strcmp(job->name, name))
			return job;
	return NULL;
}

static long do_spawn(char **w)
{
	for (struct job *job = jobs; job < jobs + 16; job++) {
		if (job->used && strcmp(job->name, w[0]))
			continue;
		*job = (struct job){};
		snprintf(job->name, sizeof(job->name), "%s", w[0]);
		if (!joined(job->command, sizeof(job->command), w + 1))
			return -E2BIG;
		int failed = pthread_create(&job->thread, NULL, run_job, job);

		job->used = !failed;
		return -failed;
	}
	return -ENOSPC;
}

/* The result of the job's command, or -ETIME while it runs. */
static long do_join(char **w)
{
	struct job *job = find_job(w[0]);
	uint64_t end = now_ns() + value(w[1]) * 1000000;

	if (!job)
		return -ENXIO;
	while (!__atomic_load_n(&job->done, __ATOMIC_ACQUIRE)) {
		if (now_ns() > end)
			return -ETIME;
		usleep(1000);
	}
	say("%s", job->notes);
	return job->result;
}

static long do_stop(char **w)
{
	struct job *job = find_job(w[0]);

	if (!job)
		return -ENXIO;
	job->stop = true;
	return 0;
}

// SPDX-License-Identifier: MIT
/* What the virtual machine says of its surfaces. Nothing of it is believed: names, ranges and sizes are checked here. */
#define _GNU_SOURCE
#include "vmm.h"

#define BAR2 2
#define RANGES 1024

static struct resource *resource(struct vmm *vmm, uint64_t id)
{
	for (struct resource *r = vmm->resources; id && r < vmm->resources + RESOURCES; r++)
		if (r->id == id)
			return r;
	return NULL;
}

static struct resource *named(struct vmm *vmm, const char *line)
{
	uint64_t id;

	return number_of(line, "resource", &id) ? resource(vmm, id) : NULL;
}

/* resource=0: nothing is shown, which a message that names no resource does not say. */
static bool is_dark(const char *line)
{
	uint64_t id;

	return number_of(line, "resource", &id) && !id;
}

static void refuse(struct vmm *vmm, const char *line, const char *reason)
{
	char answer[256];

	snprintf(answer, sizeof(answer), "error verb=%.*s reason=%s", (int)strcspn(line, " "), line, reason);
	log_line(vmm, "refused %.80s: %s", line, reason);
	port_send(vmm, answer);
}

/* NULL, or why vfio-pci is not asked for these ranges. */
static const char *ranges_problem(const struct vmm *vmm, const char *text, uint64_t size)
{
	uint64_t total = 0, all = vmm->vf.region_size[BAR2];
	unsigned count = 0;

	for (;;) {
		char *end;
		uint64_t offset = strtoull(text, &end, 0);

		if (end == text || *end != '+')
			return "ranges are offset+length, separated by commas";
		text = end + 1;
		uint64_t length = strtoull(text, &end, 0);

		if (end == text)
			return "ranges are offset+length, separated by commas";
		if (!length || offset % PAGE || length % PAGE || offset > all || length > all - offset)
			return "a range is not made of whole pages of BAR2";
		if (++count > RANGES)
			return "too many ranges";
		total += length;
		if (*end != ',')
			break;
		text = end + 1;
	}
	return total == size ? NULL : "the ranges do not add up to size";
}

static void create(struct vmm *vmm, char *line)
{
	uint64_t id, size, got;
	const char *ranges = word_of(line, "ranges"), *problem;
	struct resource *free_one = NULL;
	char text[LINE], message[128];

	for (struct resource *r = vmm->resources; r < vmm->resources + RESOURCES && !free_one; r++)
		free_one = r->id ? NULL : r;
	if (!number_of(line, "resource", &id) || !id || resource(vmm, id))
		return refuse(vmm, line, "the resource has no number, or one that is taken");
	if (!ranges || !free_one)
		return refuse(vmm, line, ranges ? "too many resources" : "no ranges");
	if (!number_of(line, "size", &size))
		return refuse(vmm, line, "no size");
	snprintf(text, sizeof(text), "%.*s", (int)strcspn(ranges, " "), ranges);
	problem = ranges_problem(vmm, text, size);
	if (problem)
		return refuse(vmm, line, problem);
	long fd = vfio_export(&vmm->vf, BAR2, 0, text, &got);

	if (fd < 0)
		return refuse(vmm, line, strerror(-fd));
	*free_one = (struct resource){ .id = id, .dmabuf = fd, .size = size };
	snprintf(message, sizeof(message), "create resource=%llu size=%#llx kind=dma-buf", (unsigned long long)id,
		 (unsigned long long)size);
	log_line(vmm, "%s", message);
	compositor_send(vmm, message, fd);
}

static void unref(struct vmm *vmm, char *line)
{
	struct resource *r = named(vmm, line), *shown = named(vmm, vmm->scanout);

	if (!r)
		return refuse(vmm, line, "no such resource");
	compositor_send(vmm, line, -1);
	if (shown == r)
		vmm->scanout[0] = 0; /* nothing to show to a compositor that comes later */
	close(r->dmabuf);
	r->id = 0;
}

void machine_said(struct vmm *vmm, char *line)
{
	bool known = named(vmm, line) != NULL;

	if (!strncmp(line, "create ", 7))
		return create(vmm, line);
	if (!strncmp(line, "unref ", 6))
		return unref(vmm, line);
	if (!strncmp(line, "scanout ", 8) && (known || is_dark(line)) && strlen(line) < sizeof(vmm->scanout)) {
		strcpy(vmm->scanout, line);
		compositor_send(vmm, line, -1);
	} else if (!strncmp(line, "flush ", 6) && known && strlen(line) < 200) {
		log_line(vmm, "%s", line);
		vmm->sent += compositor_send(vmm, line, -1);
	} else {
		refuse(vmm, line, known ? "not a message of a virtual machine" : "no such resource");
	}
}

void resources_close(struct vmm *vmm)
{
	for (struct resource *r = vmm->resources; r < vmm->resources + RESOURCES; r++) {
		if (r->id)
			close(r->dmabuf);
		r->id = 0;
	}
	vmm->scanout[0] = 0;
}

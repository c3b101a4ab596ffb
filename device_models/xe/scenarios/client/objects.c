// SPDX-License-Identifier: MIT
/* What commands made, by its name. */
#define _GNU_SOURCE
#include "objects.h"

#include <sys/mman.h>

#define OBJECTS 96

static struct object objects[OBJECTS];

struct object *object_named(const char *name)
{
	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind != NOTHING && !strcmp(o->name, name))
			return o;
	return NULL;
}

struct object *object_find(const char *name, enum kind kind)
{
	struct object *o = object_named(name);

	if (o && o->kind == kind)
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

struct object *object_create(const char *name, enum kind kind)
{
	struct object *before = object_named(name);

	if (before) {
		unmap_view(before);
		before->kind = NOTHING;
	}
	for (struct object *o = objects; o < objects + OBJECTS; o++)
		if (o->kind == NOTHING) {
			*o = (struct object){ .kind = kind, .fd = -1, .container = -1, .group = -1 };
			snprintf(o->name, sizeof(o->name), "%s", name);
			return o;
		}
	abort();
}

void object_unmap(struct object *o)
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

long object_close_fd(int *fd)
{
	int closed = *fd;

	*fd = -1;
	return closed < 0 || close(closed) == 0 ? 0 : -errno;
}

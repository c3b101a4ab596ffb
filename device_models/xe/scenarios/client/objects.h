/* SPDX-License-Identifier: MIT */
/* What commands made: a later command finds it by its name. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include "client.h"

/* The object of this name, or NULL. */
struct object *object_named(const char *name);
/* The same, which has to be of this kind; says so otherwise. */
struct object *object_find(const char *name, enum kind kind);
/* A new one, whose descriptors are -1. One that had the name is forgotten; its descriptors stay open. */
struct object *object_create(const char *name, enum kind kind);
/* Unmaps what is mapped of it, as a mapping holds its file. */
void object_unmap(struct object *o);
/* Closes the descriptor, where there is one, and forgets it; 0 or a negative errno value. */
long object_close_fd(int *fd);

/* Ends the command that has no such object. */
#define WANT(variable, name, kind)                                                                                     \
	struct object *variable = object_find(name, kind);                                                             \
	if (!variable)                                                                                                 \
		return -ENXIO

static inline bool within(uint64_t size, uint64_t offset, uint64_t length)
{
	return offset <= size && length <= size - offset;
}

#endif

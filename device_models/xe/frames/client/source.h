/* A source of surfaces, as the compositor knows it: a connection, its resources, and what its window shows. */
#ifndef SOURCE_H
#define SOURCE_H

#include "message.h"
#include "surface.h"

enum { SOURCE_RESOURCES = 16, SOURCE_NAME = 32 };

struct resource {
	uint64_t number; /* 0: free */
	int fd;
	uint64_t size;
	bool memory; /* a memfd, which is copied at each flush */
	void *image;
	GLuint texture;
	struct surface surface; /* that the texture was made for; `planes` 0: none was */
};

struct source {
	int socket; /* -1: it has gone, or has not come */
	bool came;
	char name[SOURCE_NAME];
	struct resource resources[SOURCE_RESOURCES];
	struct resource *next; /* what a flush will show; NULL: nothing */
	struct resource *shown; /* NULL: nothing */
	uint64_t flushed, composed; /* frames: the last that came whole, and the last that was drawn */
	bool waits; /* `flushed` is to be answered */
	bool darkened; /* since the last picture */
};

/* Takes one message.  NULL, or why it is refused; then nothing was changed. */
const char *source_take(struct source *source, struct message *message);
/* Forgets all resources: the GPU is done with them afterwards. */
void source_forget(struct source *source);
/* Tells that the frame was drawn; `fence` is a sync file or -1, and stays the caller's. */
bool source_answer(struct source *source, uint64_t composed, int fence);

#endif

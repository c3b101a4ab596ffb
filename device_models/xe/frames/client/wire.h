/* Wayland's wire, the server's end: connections, objects, arguments of requests, events (the Wayland Protocol, chapter 4). */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { WIRE_MOST = 4096, WIRE_FDS = 28, WIRE_SERVER_IDS = 0xff000000 };

enum kind {
	KIND_NONE, KIND_DISPLAY, KIND_REGISTRY, KIND_CALLBACK, KIND_COMPOSITOR, KIND_REGION, KIND_SURFACE, KIND_SHM, KIND_SHM_POOL,
	KIND_BUFFER, KIND_OUTPUT, KIND_WM_BASE, KIND_POSITIONER, KIND_XDG_SURFACE, KIND_TOPLEVEL, KIND_POPUP, KIND_DMABUF, KIND_PARAMS,
	KIND_FEEDBACK,
};

/* What an id means to a client; `data` is what the kind needs. */
struct object {
	enum kind kind;
	uint32_t version;
	void *data;
};

struct objects {
	struct object *first;
	uint32_t count;
};

struct client {
	int socket;
	bool broken; /* an error was said, or the connection has ended: it is to be dropped */
	struct objects own, made; /* ids of the client's, from 1 on; of the server's, from WIRE_SERVER_IDS on */
	uint8_t in[WIRE_MOST];
	uint32_t length;
	int fds[WIRE_FDS];
	int fd_count;
};

/* A request whose arguments are taken one after the other; a malformed one breaks its client. */
struct request {
	struct client *client;
	uint32_t id, opcode;
	const uint32_t *at, *end;
};

uint32_t take_number(struct request *request);
/* A string of the request's, or "". */
const char *take_string(struct request *request);
/* A descriptor, which the caller owns; -1: there is none, and the client is broken. */
int take_fd(struct request *request);
/* An id for a new object of this kind and version, which the client has chosen; 0 where it may not. */
uint32_t take_new(struct request *request, enum kind kind, uint32_t version, void *data);
/* The data of an object of this kind; NULL where the id is 0 or the object is none. */
void *take_object(struct request *request, enum kind kind);

struct object *object_of(struct client *client, uint32_t id);
/* An object with an id of the server's; 0: there is no memory. */
uint32_t object_made(struct client *client, enum kind kind, uint32_t version, void *data);
void object_deleted(struct client *client, uint32_t id);

/* Arguments of an event: u number, s string, a array (pointer, bytes), h descriptor. */
void event(struct client *client, uint32_t id, uint32_t opcode, const char *form, ...);
/* wl_display.error: the client is broken by it. */
__attribute__((format(printf, 4, 5))) void protocol_error(struct client *client, uint32_t id, uint32_t code, const char *format, ...);

int wire_listen(const char *path);
struct client *wire_accept(int listener);
/* Read what is there, and call `handle` for each whole request. */
void wire_read(struct client *client, void (*handle)(struct request *request, struct object object));
void wire_close(struct client *client);

#endif

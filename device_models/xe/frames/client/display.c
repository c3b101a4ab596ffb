/* A display for Wayland clients that nobody here wrote: what they show full-screen is passed to a compositor, by surface messages.
 *
 *	frame-display --display /run/wayland-1 --socket PATH --name vm1 [--width 320] [--height 200] [--modifier linear|x|tile4]
 *
 * GL_DEVICE names the render node, for clients whose buffers are dma-bufs. The window shows the client that has committed last.
 * There are wl_compositor, wl_shm, wl_output, xdg_wm_base and zwp_linux_dmabuf_v1; no input, no popups, no subsurfaces.
 * The numbers of requests and events are those of the protocols' XML, in their order. */
#define _GNU_SOURCE
#include "display.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CLIENTS = 16, MOST_CALLBACKS = 32 };

struct surface {
	struct client *client;
	uint32_t pending; /* id of a wl_buffer; 0: none */
	bool attached; /* since the last commit */
	uint32_t shell, toplevel; /* ids of its xdg_surface and xdg_toplevel; 0: none */
	bool configured;
	uint32_t callbacks[MOST_CALLBACKS]; /* to be called when the frame is shown */
	int callback_count;
};

struct options options = {.name = "vm1", .width = 320, .height = 200};

static const struct {
	const char *interface;
	uint32_t version;
	enum kind kind;
} globals[] = {
	{"wl_compositor", 4, KIND_COMPOSITOR}, {"wl_shm", 1, KIND_SHM},		     {"wl_output", 2, KIND_OUTPUT},
	{"xdg_wm_base", 1, KIND_WM_BASE},      {"zwp_linux_dmabuf_v1", 4, KIND_DMABUF},
};

static struct client *clients[MOST_CLIENTS];
static uint32_t serial;

/* Frames */

static void shown(void *data)
{
	struct surface *surface = data;
	int count = surface->callback_count;

	surface->callback_count = 0;
	for (int i = 0; i < count; i++) {
		event(surface->client, surface->callbacks[i], 0, "u", ++serial); /* done */
		object_deleted(surface->client, surface->callbacks[i]);
	}
}

static void configure(struct surface *surface)
{
	uint32_t states[] = {2, 4}; /* fullscreen, activated */

	event(surface->client, surface->toplevel, 0, "uua", (uint32_t)options.width, (uint32_t)options.height, states, (uint32_t)sizeof states);
	event(surface->client, surface->shell, 0, "u", ++serial);
	surface->configured = true;
}

static void commit(struct surface *surface)
{
	struct object *found = surface->attached ? object_of(surface->client, surface->pending) : NULL;
	struct buffer *buffer = found && found->kind == KIND_BUFFER ? found->data : NULL;

	surface->attached = false;
	if (surface->toplevel && !surface->configured)
		configure(surface);
	if (buffer && surface->toplevel)
		return scanout_show(buffer, shown, surface);
	/* A cursor, or nothing new: there is no frame to wait for. */
	if (buffer && !buffer->committed)
		event(surface->client, buffer->id, 0, "");
	shown(surface);
}

static void surface_destroyed(struct surface *surface)
{
	uint32_t roles[] = {surface->shell, surface->toplevel};

	for (int i = 0; i < 2; i++) {
		struct object *role = object_of(surface->client, roles[i]);

		if (role)
			role->data = NULL;
	}
	scanout_forget(surface);
	free(surface);
}

/* Requests, a function an interface. Of a destructor the object goes; what has no meaning for a display without a screen is ignored. */

static void registry_request(struct request *request)
{
	uint32_t name = take_number(request), version, id;
	const char *interface = take_string(request);
	struct client *client = request->client;

	version = take_number(request);
	if (name >= sizeof globals / sizeof *globals || strcmp(interface, globals[name].interface) || version > globals[name].version)
		return protocol_error(client, request->id, 0, "there is no global %u, %s of version %u", name, interface, version);
	id = take_new(request, globals[name].kind, version, NULL);
	if (!id)
		return;
	if (globals[name].kind == KIND_SHM) {
		event(client, id, 0, "u", 0); /* format ARGB8888 */
		event(client, id, 0, "u", 1); /* and XRGB8888 */
	}
	if (globals[name].kind == KIND_OUTPUT) {
		event(client, id, 0, "uuuuussu", 0, 0, 0, 0, 0, "vfio-user-xe", "frame-display", 0);
		event(client, id, 1, "uuuu", 3, (uint32_t)options.width, (uint32_t)options.height, 60000);
		if (version >= 2)
			event(client, id, 2, "");
	}
}

static void display_request(struct request *request)
{
	struct client *client = request->client;
	uint32_t id = take_new(request, request->opcode ? KIND_REGISTRY : KIND_CALLBACK, 1, NULL);

	if (!id)
		return;
	if (!request->opcode) { /* sync */
		event(client, id, 0, "u", ++serial);
		return object_deleted(client, id);
	}
	for (uint32_t i = 0; i < sizeof globals / sizeof *globals; i++)
		if (options.node || globals[i].kind != KIND_DMABUF)
			event(client, id, 0, "usu", i, globals[i].interface, globals[i].version);
}

static void compositor_request(struct request *request)
{
	struct surface *surface;

	if (request->opcode) {
		take_new(request, KIND_REGION, 1, NULL);
		return;
	}
	surface = calloc(1, sizeof *surface);
	if (!surface)
		return protocol_error(request->client, 1, 2, "no memory for a surface");
	surface->client = request->client;
	if (!take_new(request, KIND_SURFACE, 4, surface))
		free(surface);
}

static void surface_request(struct request *request, struct surface *surface)
{
	uint32_t id;

	switch (request->opcode) {
	case 0: /* destroy */
		surface_destroyed(surface);
		return object_deleted(request->client, request->id);
	case 1: /* attach */
		surface->pending = take_number(request);
		surface->attached = true;
		return;
	case 3: /* frame */
		id = take_new(request, KIND_CALLBACK, 1, NULL);
		if (!id)
			return;
		if (surface->callback_count == MOST_CALLBACKS)
			return protocol_error(request->client, request->id, 2, "more than %d frames wait", MOST_CALLBACKS);
		surface->callbacks[surface->callback_count++] = id;
		return;
	case 6:
		return commit(surface);
	}
}

static void wm_base_request(struct request *request)
{
	struct surface *surface;
	uint32_t id;

	if (!request->opcode)
		return object_deleted(request->client, request->id);
	if (request->opcode == 1) {
		take_new(request, KIND_POSITIONER, 1, NULL);
	} else if (request->opcode == 2) {
		id = take_new(request, KIND_XDG_SURFACE, 1, NULL);
		surface = take_object(request, KIND_SURFACE);
		if (!id || !surface)
			return;
		surface->shell = id;
		object_of(request->client, id)->data = surface;
	}
}

static void shell_request(struct request *request, struct surface *surface)
{
	if (!surface || !request->opcode) {
		if (surface)
			surface->shell = 0;
		return object_deleted(request->client, request->id);
	}
	if (request->opcode == 1)
		surface->toplevel = take_new(request, KIND_TOPLEVEL, 1, surface);
	else if (request->opcode == 2)
		protocol_error(request->client, request->id, 2, "there are no popups: nothing points at anything");
}

static void toplevel_request(struct request *request, struct surface *surface)
{
	if (request->opcode)
		return;
	if (surface) {
		surface->toplevel = 0;
		surface->configured = false;
	}
	object_deleted(request->client, request->id);
}

static void handle(struct request *request, struct object object)
{
	switch (object.kind) {
	case KIND_DISPLAY:
		return display_request(request);
	case KIND_REGISTRY:
		return registry_request(request);
	case KIND_COMPOSITOR:
		return compositor_request(request);
	case KIND_SURFACE:
		return surface_request(request, object.data);
	case KIND_SHM:
		return shm_request(request);
	case KIND_SHM_POOL:
		return pool_request(request, object.data);
	case KIND_BUFFER:
		buffer_destroyed(object.data);
		return object_deleted(request->client, request->id);
	case KIND_WM_BASE:
		return wm_base_request(request);
	case KIND_XDG_SURFACE:
		return shell_request(request, object.data);
	case KIND_TOPLEVEL:
		return toplevel_request(request, object.data);
	case KIND_DMABUF:
		return dmabuf_request(request);
	case KIND_PARAMS:
		return params_request(request, object.data);
	default: /* of a region, an output, a positioner, a feedback: only that it goes matters */
		if (!request->opcode)
			object_deleted(request->client, request->id);
	}
}

static void forget_object(struct object *object)
{
	struct buffer *buffer = object->data;

	switch (object->kind) {
	case KIND_SURFACE:
		return surface_destroyed(object->data);
	case KIND_SHM_POOL:
		return pool_destroyed(object->data);
	case KIND_PARAMS:
		return params_destroyed(object->data);
	case KIND_BUFFER:
		buffer->client = NULL;
		return buffer_destroyed(buffer);
	default:
		return;
	}
}

static void drop_client(struct client **client)
{
	struct objects all[] = {(*client)->own, (*client)->made};

	for (int i = 0; i < 2; i++)
		for (uint32_t id = 0; id < all[i].count; id++)
			forget_object(&all[i].first[id]);
	wire_close(*client);
	*client = NULL;
	scanout_client_gone();
}

static void accept_client(int listener)
{
	struct client *client = wire_accept(listener);

	for (int i = 0; client && i < MOST_CLIENTS; i++)
		if (!clients[i]) {
			clients[i] = client;
			return;
		}
	if (client) {
		protocol_error(client, 1, 2, "there are %d clients at most", MOST_CLIENTS);
		wire_close(client);
	}
}

static void wrong(const char *what)
{
	fprintf(stderr, "frame-display: %s\n", what);
	exit(2);
}

static void parse(int count, char **words)
{
	const struct {
		const char *name;
		const char **text;
		uint64_t *number;
	} known[] = {
		{"--display", &options.display, NULL}, {"--socket", &options.socket, NULL}, {"--name", &options.name, NULL},
		{"--modifier", &options.modifier, NULL}, {"--width", NULL, &options.width}, {"--height", NULL, &options.height},
	};

	for (int i = 1; i < count; i += 2) {
		unsigned n = 0;

		while (n < sizeof known / sizeof *known && strcmp(words[i], known[n].name))
			n++;
		if (n == sizeof known / sizeof *known || i + 1 == count)
			wrong("allowed are --display, --socket, --name, --modifier, --width and --height, each with a value");
		if (known[n].text)
			*known[n].text = words[i + 1];
		else
			*known[n].number = strtoull(words[i + 1], NULL, 0);
	}
	if (options.modifier && !is_modifier(options.modifier))
		wrong("--modifier: allowed are linear, x, tile4");
	if (!options.display || !options.socket || !options.width || !options.height || options.width > 16384 || options.height > 16384)
		wrong("--display and --socket are needed; a width and a height are 1 to 16384");
	options.node = getenv("GL_DEVICE");
}

int main(int count, char **words)
{
	struct pollfd ready[MOST_CLIENTS + 2];
	int listener;

	parse(count, words);
	scanout_open(options.socket, options.name);
	listener = wire_listen(options.display);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		ready[0] = (struct pollfd){.fd = listener, .events = POLLIN};
		ready[1] = (struct pollfd){.fd = scanout_socket(), .events = POLLIN};
		for (int i = 0; i < MOST_CLIENTS; i++)
			ready[i + 2] = (struct pollfd){.fd = clients[i] ? clients[i]->socket : -1, .events = POLLIN};
		poll(ready, MOST_CLIENTS + 2, -1);
		if (ready[1].revents)
			scanout_take();
		for (int i = 0; i < MOST_CLIENTS; i++) {
			if (clients[i] && ready[i + 2].revents)
				wire_read(clients[i], handle);
			if (clients[i] && clients[i]->broken)
				drop_client(&clients[i]);
		}
		if (ready[0].revents)
			accept_client(listener);
	}
}

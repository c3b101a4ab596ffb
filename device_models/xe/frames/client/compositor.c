/* Shows the frames of several sources in windows of one picture, on the device that GL_DEVICE names.
 *
 *	frame-compositor --socket PATH [--windows vm1,vm2] [--width 640] [--height 240] [--together] [--frames 0] [--save FOLDER]
 *
 * Prints `ready` when sources may connect, and a line for each picture: the frames in it, the milliseconds that it took, and the monotonic
 * clock in milliseconds.  `--windows` names the sources, from the left.  `--together`: a
 * picture is drawn when every source has a new frame, otherwise when one has or goes dark.  Ends after `--frames` pictures (0: when every source has come and gone).  `--save`
 * writes each picture as a PAM, its top row first. */
#define _GNU_SOURCE
#include "source.h"
#include "windows.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_WINDOWS = 4 };

static struct {
	const char *socket, *save, *windows;
	uint64_t width, height, frames;
	bool together;
} options = {.width = 640, .height = 240, .windows = "vm1"};

static struct source sources[MOST_WINDOWS];
static unsigned count;
static int strangers[MOST_WINDOWS]; /* that have not said their names */
static uint64_t composed;

static void leave(struct source *source)
{
	source_forget(source);
	close(source->socket);
	source->socket = -1;
	printf("gone %s\n", source->name);
}

/* The window that a source names by its first message; NULL, and it is told why, where it gets none. */
static struct source *window_of(int socket, const struct message *message)
{
	const char *name = message_word(message, "name");
	uint64_t version;

	if (strcmp(message->verb, "hello") || !message_number(message, "version", &version) || version != 1 || !name) {
		message_send(socket, -1, "error verb=%s reason=the first message is hello, with version 1 and a name", message->verb);
		return NULL;
	}
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(sources[i].name, name) && sources[i].socket < 0)
			return &sources[i];
	message_send(socket, -1, "error verb=hello reason=there is no free window of that name");
	return NULL;
}

static void greet(int *socket)
{
	static struct message message;
	struct source *source = NULL;

	if (message_receive(*socket, &message)) {
		source = window_of(*socket, &message);
		message_done(&message);
	}
	if (source) {
		source->socket = *socket;
		source->came = true;
	} else {
		close(*socket);
	}
	*socket = -1;
}

static void welcome(int listening)
{
	/* A source that does not read its answers is no reason to wait. */
	int socket = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	for (unsigned i = 0; socket >= 0 && i < MOST_WINDOWS; i++)
		if (strangers[i] < 0) {
			strangers[i] = socket;
			return;
		}
	if (socket >= 0)
		close(socket);
}

static void listen_to(struct source *source)
{
	static struct message message;
	const char *reason;

	if (!message_receive(source->socket, &message)) {
		leave(source);
		return;
	}
	reason = source_take(source, &message);
	if (reason) {
		printf("refused %s %s: %s\n", source->name, message.verb, reason);
		message_send(source->socket, -1, "error verb=%s reason=%s", message.verb, reason);
	}
	message_done(&message);
}

static bool is_due(void)
{
	unsigned waiting = 0, here = 0;
	bool all_came = true, changed = false;

	for (unsigned i = 0; i < count; i++) {
		here += sources[i].socket >= 0;
		waiting += sources[i].waits;
		all_came &= sources[i].came;
		changed |= sources[i].darkened;
	}
	return options.together ? waiting && all_came && waiting == here : waiting || changed;
}

static void compose(void)
{
	struct window windows[MOST_WINDOWS] = {0};
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned i = 0; i < count; i++) {
		const struct resource *shown = sources[i].shown;
		sources[i].darkened = false;
		if (shown)
			windows[i] = (struct window){shown->texture, shown->surface.width, shown->surface.height};
	}
	windows_draw(windows, count);
	int fence = fence_make();
	composed++;
	for (unsigned i = 0; i < count; i++)
		if (sources[i].waits && !source_answer(&sources[i], composed, fence))
			leave(&sources[i]);
	if (fence >= 0)
		close(fence);
	if (options.save) {
		char path[256];
		snprintf(path, sizeof path, "%s/composed-%04llu.pam", options.save, (unsigned long long)composed);
		gl_save(path, options.width, options.height);
	}
	glFinish();
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("composed %llu", (unsigned long long)composed);
	for (unsigned i = 0; i < count; i++)
		printf(" %s=%llu", sources[i].name, (unsigned long long)(sources[i].shown ? sources[i].composed : 0));
	printf(" ms=%.0f at=%.0f\n", (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6,
	       end.tv_sec * 1e3 + end.tv_nsec / 1e6);
}

static bool all_have_gone(void)
{
	for (unsigned i = 0; i < count; i++)
		if (!sources[i].came || sources[i].socket >= 0)
			return false;
	return true;
}

static void name_windows(const char *names)
{
	for (const char *name = names; *name && count < MOST_WINDOWS; count++) {
		size_t length = strcspn(name, ",");
		if (!length || length >= SOURCE_NAME)
			gl_fail("--windows: names have 1 to 31 characters");
		memcpy(sources[count].name, name, length);
		sources[count].socket = -1;
		name += length + (name[length] == ',');
	}
}

static void parse(int argc, char **words)
{
	const struct { const char *name; const char **text; uint64_t *number; } known[] = {
		{"--socket", &options.socket, NULL}, {"--save", &options.save, NULL}, {"--width", NULL, &options.width},
		{"--height", NULL, &options.height}, {"--windows", &options.windows, NULL}, {"--frames", NULL, &options.frames},
	};

	for (int i = 1; i < argc; i++) {
		unsigned n = 0;
		if (!strcmp(words[i], "--together")) {
			options.together = true;
			continue;
		}
		while (n < sizeof known / sizeof *known && strcmp(words[i], known[n].name))
			n++;
		if (n == sizeof known / sizeof *known || i + 1 == argc)
			gl_fail(words[i]);
		if (known[n].text)
			*known[n].text = words[++i];
		else
			*known[n].number = strtoull(words[++i], NULL, 0);
	}
	name_windows(options.windows);
	if (!options.socket || !options.width || !options.height || !count)
		gl_fail("--socket is needed, a width and a height, and 1 to 4 windows");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned i = 0; i < MOST_WINDOWS; i++)
		strangers[i] = -1;
	parse(argc, argv);
	gl_open();
	gl_framebuffer(options.width, options.height);
	windows_open(options.width, options.height);
	int listening = message_listen(options.socket);
	printf("ready\n");
	while (!all_have_gone() && (!options.frames || composed < options.frames)) {
		struct pollfd waiting[1 + 2 * MOST_WINDOWS] = {{.fd = listening, .events = POLLIN}};
		struct pollfd *theirs = waiting + 1, *new = waiting + 1 + MOST_WINDOWS;
		for (unsigned i = 0; i < MOST_WINDOWS; i++) {
			/* A source whose frame waits is not listened to, but its end is seen. */
			theirs[i] = (struct pollfd){.fd = i < count ? sources[i].socket : -1, .events = sources[i].waits ? 0 : POLLIN};
			new[i] = (struct pollfd){.fd = strangers[i], .events = POLLIN};
		}
		if (poll(waiting, sizeof waiting / sizeof *waiting, -1) < 0)
			continue;
		for (unsigned i = 0; i < MOST_WINDOWS; i++) {
			if (theirs[i].revents && sources[i].waits)
				leave(&sources[i]);
			else if (theirs[i].revents)
				listen_to(&sources[i]);
			if (new[i].revents)
				greet(&strangers[i]);
		}
		if (waiting[0].revents)
			welcome(listening);
		if (is_due())
			compose();
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Exports memory of VFs as dma-bufs and imports it on GPUs, as told: both sides of what is tested, in one process or several.
 *
 *	xe-dmabuf COMMAND...                        run commands, one an argument
 *	xe-dmabuf --serve NAME                      go to the background and take commands from others; prints the process id
 *	xe-dmabuf --to NAME [--timeout S] COMMAND...  send commands there; exit code 124 when they take longer
 *
 * Each command reports a line of TAP, then what it has to say ("# errno=0 took_us=140 handle=3") and what the kernel
 * logged meanwhile ("# kernel: ..."). "expect EINVAL COMMAND" is ok when it fails so, "try COMMAND" however it ends.
 * Numbers are decimal or 0x..., sizes in bytes. Exit code: 0 all were ok, 1 some were not, 2 could not run.
 */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BLOCKED 124

static unsigned number, failed;
static int kernel_log = -1;
static FILE *out;

/* What the kernel logged since the last call and somebody should see (Documentation/ABI/testing/dev-kmsg). */
static void print_kernel_log(void)
{
	static const char *const telling[] = { "p2p", "P2P", "peer-to-peer", "ACS", "DMAR", "vfio", "blocked for more", "[drm]" };
	char record[4096];

	for (;;) {
		ssize_t length = read(kernel_log, record, sizeof(record) - 1);

		if (length < 0 && errno == EPIPE)
			continue;
		if (length <= 0)
			return;
		record[length] = 0;
		unsigned priority = strtoul(record, NULL, 10);
		char *message = strchr(record, ';');
		bool wanted = (priority & 7) <= 4;

		if (!message || priority >> 3)
			continue;
		message[strcspn(message, "\n")] = 0;
		for (size_t i = 0; i < sizeof(telling) / sizeof(*telling); i++)
			wanted |= !!strstr(message, telling[i]);
		if (wanted)
			fprintf(out, "# kernel: %s\n", message + 1);
	}
}

static int errno_of(const char *name)
{
	for (int i = 1; i < 200; i++)
		if (strerrorname_np(i) && !strcmp(strerrorname_np(i), name))
			return i;
	return -1;
}

static void run(const char *command)
{
	char line[MOST_LINE], *words[WORDS + 1], **first = words;
	long wanted = 0;
	bool any = false;

	/* A line that was cut off would be another command. */
	unsigned count = snprintf(line, sizeof(line), "%s", command) < MOST_LINE ? split(line, words) : TOO_MANY;

	if (!count)
		return;
	if (count == TOO_MANY) {
		first = NULL;
	} else if (!strcmp(first[0], "try")) {
		any = true;
		first++, count--;
	} else if (!strcmp(first[0], "expect") && count > 1) {
		wanted = -errno_of(first[1]);
		first += 2, count -= 2;
	}
	notes[0] = 0;
	uint64_t started = now_ns();
	long result = run_words(first, count);
	uint64_t taken = now_ns() - started;
	bool ok = any || result == wanted;

	failed += !ok;
	fprintf(out, "%sok %u - %s\n", ok ? "" : "not ", ++number, command);
	fprintf(out, "# errno=%s took_us=%llu %s\n", result < 0 ? strerrorname_np(-result) : "0",
		(unsigned long long)(taken / 1000), notes);
	print_kernel_log();
	fflush(out);
}

/* Commands from other processes -------------------------------------------------------------------------------- */

static socklen_t address_of(const char *name, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "xe-dmabuf.%s", name);

	return offsetof(struct sockaddr_un, sun_path) + 1 + length;
}

static void serve_one(int connection)
{
	char *line = NULL;
	size_t size = 0;
	FILE *in = fdopen(dup(connection), "r");

	out = fdopen(connection, "w");
	while (getline(&line, &size, in) > 0) {
		line[strcspn(line, "\n")] = 0;
		run(line);
	}
	free(line);
	fclose(in);
	fclose(out);
}

static int serve(const char *name)
{
	struct sockaddr_un address;
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(listener, (struct sockaddr *)&address, address_of(name, &address)) || listen(listener, 8)) {
		perror("xe-dmabuf: listening");
		return 2;
	}
	pid_t child = fork();

	if (child) {
		printf("%d\n", child);
		return child < 0 ? 2 : 0;
	}
	setsid();
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	/* What the shell had open must not be held, nor take the low numbers: those that count are opened later. */
	for (int fd = 3; fd < 32; fd++)
		if (fd != listener && fd != kernel_log)
			close(fd);
	/* Whoever sent a command may be gone when it ends. */
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (connection >= 0)
			serve_one(connection);
	}
}

static int send_commands(const char *name, unsigned timeout, int count, char **lines)
{
	struct sockaddr_un address;
	int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t end = now_ns() + timeout * 1000000000ull;
	char buffer[4096];
	int code = 0;

	if (connect(connection, (struct sockaddr *)&address, address_of(name, &address))) {
		perror("xe-dmabuf: nobody serves that name");
		return 2;
	}
	for (int i = 0; i < count; i++)
		dprintf(connection, "%s\n", lines[i]);
	shutdown(connection, SHUT_WR);
	for (;;) {
		struct pollfd ready = { .fd = connection, .events = POLLIN };
		int64_t left = end - now_ns();
		ssize_t length;

		if (left <= 0 || poll(&ready, 1, left / 1000000 + 1) <= 0)
			return BLOCKED;
		length = read(connection, buffer, sizeof(buffer) - 1);
		if (length <= 0)
			return code;
		buffer[length] = 0;
		code |= !strncmp(buffer, "not ok", 6) || strstr(buffer, "\nnot ok");
		fputs(buffer, stdout);
		fflush(stdout);
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: xe-dmabuf [--serve NAME | --to NAME [--timeout SECONDS]] [COMMAND...]\n");
	print_usage(stderr);
	return 2;
}

int main(int argc, char **argv)
{
	unsigned timeout = 30;

	out = stdout;
	if (argc >= 4 && !strcmp(argv[1], "--to")) {
		int first = 3;

		if (!strcmp(argv[3], "--timeout") && argc > 4) {
			timeout = strtoul(argv[4], NULL, 0);
			first = 5;
		}
		return send_commands(argv[2], timeout, argc - first, argv + first);
	}
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kernel_log, 0, SEEK_END);
	if (argc == 3 && !strcmp(argv[1], "--serve"))
		return serve(argv[2]);
	if (argc < 2 || !strncmp(argv[1], "--", 2))
		return usage();
	for (int i = 1; i < argc; i++)
		run(argv[i]);
	printf("1..%u\n", number);
	return failed ? 1 : 0;
}

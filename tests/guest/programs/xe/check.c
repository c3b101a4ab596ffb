// SPDX-License-Identifier: MIT
/* Runs the checks of a program and reports them; see check.h. */
#define _GNU_SOURCE
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define DEFAULT_TIMEOUT 30
#define KILL_GRACE 15 /* seconds that a killed process may need to leave the kernel */
#define SKIPPED 77

extern const struct check *const __start_checks[];
extern const struct check *const __stop_checks[];

char device_pci[16];
char device_node[64];

/* What the check's process has to say, in memory shared with it. */
static struct report {
	size_t used;
	char text[16384];
} *report;

static void say(const char *prefix, const char *format, va_list arguments)
{
	char line[1024];
	int length = snprintf(line, sizeof(line), "%s", prefix);

	length += vsnprintf(line + length, sizeof(line) - length - 1, format, arguments);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	size_t at = __atomic_fetch_add(&report->used, length, __ATOMIC_RELAXED);
	if (at + length < sizeof(report->text))
		memcpy(report->text + at, line, length);
}

void note(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say("", format, arguments);
	va_end(arguments);
}

void fail(const char *file, int line, const char *format, ...)
{
	char prefix[128];
	const char *name = strrchr(file, '/');
	va_list arguments;

	snprintf(prefix, sizeof(prefix), "%s:%d: ", name ? name + 1 : file, line);
	va_start(arguments, format);
	say(prefix, format, arguments);
	va_end(arguments);
	_exit(1);
}

void skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say("SKIP ", format, arguments);
	va_end(arguments);
	_exit(SKIPPED);
}

uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

void sleep_ms(unsigned milliseconds)
{
	usleep(milliseconds * 1000);
}

/* Print each line of `text` as a TAP diagnostic. */
static void print_diagnostics(const char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");

		printf("# %.*s\n", (int)length, text);
		text += length;
		text += *text == '\n';
	}
}

static int kernel_log = -1;

static void mark_kernel_log(const char *check)
{
	FILE *file = fopen("/dev/kmsg", "w");

	if (file) {
		fprintf(file, "<6>check %s.%s begins\n", program_invocation_short_name, check);
		fclose(file);
	}
}

static bool contains_any(const char *message, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strstr(message, words[i]))
			return true;
	return false;
}

/* Whether a line of the kernel's log (Documentation/ABI/testing/dev-kmsg) fails a check. */
static bool is_bad(unsigned level, const char *message, bool expects_errors)
{
	static const char *const splats[] = { "WARNING: ", "BUG: ", "Oops", "cut here", "refcount_t:", "blocked for more than",
					      "general protection", "possible recursive", "possible circular", "wedged" };
	/* What xe warns of when the device or its GuC does not do what was asked, whatever the job did. */
	static const char *const defects[] = { "failed to respond", "invalidation fence timeout", "CAT error reported by GuC!",
					       "not started", "timestamp stuck" };

	if (contains_any(message, splats, sizeof(splats) / sizeof(*splats)))
		return true;
	if (level <= 4 && contains_any(message, defects, sizeof(defects) / sizeof(*defects)))
		return true;
	if (expects_errors)
		return false;
	return (level <= 3 && (strstr(message, "xe ") || strstr(message, "[drm]"))) || strstr(message, "Timedout job");
}

/* Read what was logged since the last call, and write what is warning or worse; tells whether none of it is bad. */
static bool read_kernel_log(FILE *out, bool expects_errors)
{
	char record[4096];
	bool clean = true;

	for (;;) {
		ssize_t length = read(kernel_log, record, sizeof(record) - 1);

		if (length < 0 && errno == EPIPE)
			continue; /* overwritten records: the next read goes on after them */
		if (length <= 0)
			return clean;
		record[length] = 0;
		unsigned priority = strtoul(record, NULL, 10);
		char *message = strchr(record, ';');
		if (!message || priority >> 3) /* not the kernel's own */
			continue;
		message++;
		message[strcspn(message, "\n")] = 0;
		bool bad = is_bad(priority & 7, message, expects_errors);
		if (bad || (priority & 7) <= 4)
			fprintf(out, "# kernel%s: %s\n", bad ? " (unexpected)" : "", message);
		clean &= !bad;
	}
}

static const char *describe(int status, char *buffer, size_t size, unsigned timeout)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		snprintf(buffer, size, "did not end within %u s", timeout);
	else if (WIFSIGNALED(status))
		snprintf(buffer, size, "died of signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		buffer[0] = 0;
	return buffer;
}

/* Wait until the process has ended, files closed and all; kills it after the time allowed. */
static int wait_for(pid_t child, unsigned timeout)
{
	struct pollfd ended = { .fd = syscall(SYS_pidfd_open, child, 0), .events = POLLIN };
	int status;

	if (ended.fd < 0) {
		printf("Bail out! pidfd_open: %s\n", strerror(errno));
		exit(2);
	}
	if (poll(&ended, 1, timeout * 1000) == 0) {
		kill(child, SIGKILL);
		if (poll(&ended, 1, KILL_GRACE * 1000) == 0) {
			printf("Bail out! the check's process was killed and does not leave the kernel\n");
			exit(2);
		}
	}
	close(ended.fd);
	waitpid(child, &status, 0);
	return status;
}

static bool run_check(const struct check *check, unsigned number)
{
	unsigned timeout = check->timeout ?: DEFAULT_TIMEOUT;
	char how[128];

	mark_kernel_log(check->name);
	memset(report, 0, sizeof(*report));
	fflush(stdout);
	uint64_t started = now();
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		check->run();
		_exit(0);
	}
	if (child < 0) {
		printf("Bail out! fork: %s\n", strerror(errno));
		exit(2);
	}
	int status = wait_for(child, timeout);
	unsigned milliseconds = (now() - started) / 1000000;
	report->text[sizeof(report->text) - 1] = 0;

	char *log = NULL;
	size_t log_size = 0;
	FILE *memory = open_memstream(&log, &log_size);
	bool clean = read_kernel_log(memory, check->expects_errors);
	fclose(memory);

	bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED;
	bool passed = clean && WIFEXITED(status) && (WEXITSTATUS(status) == 0 || skipped);
	const char *reason = strstr(report->text, "SKIP ");
	printf("%s %u - %s", passed ? "ok" : "not ok", number, check->name);
	if (passed && skipped && reason)
		printf(" # %.*s", (int)strcspn(reason, "\n"), reason);
	putchar('\n');
	if (!skipped)
		print_diagnostics(report->text);
	describe(status, how, sizeof(how), timeout);
	print_diagnostics(how);
	fwrite(log, 1, log_size, stdout);
	free(log);
	printf("# took %u ms\n", milliseconds);
	fflush(stdout);
	return passed;
}

static bool read_link_name(const char *path, char *name, size_t size)
{
	char target[256];
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return false;
	target[length] = 0;
	snprintf(name, size, "%s", strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
	return true;
}

/* Find the render node of the wanted PCI device, or of the first one that xe drives. */
static bool find_device(const char *wanted)
{
	DIR *folder = opendir("/sys/class/drm");
	int best = -1;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		char path[384], pci[64], driver[64];
		int minor;

		if (sscanf(entry->d_name, "renderD%d", &minor) != 1)
			continue;
		snprintf(path, sizeof(path), "/sys/class/drm/%s/device", entry->d_name);
		if (!read_link_name(path, pci, sizeof(pci)))
			continue;
		snprintf(path, sizeof(path), "/sys/class/drm/%s/device/driver", entry->d_name);
		if (!read_link_name(path, driver, sizeof(driver)) || strcmp(driver, "xe"))
			continue;
		if (wanted ? strcmp(wanted, pci) : best >= 0 && best < minor)
			continue;
		best = minor;
		snprintf(device_pci, sizeof(device_pci), "%s", pci);
		snprintf(device_node, sizeof(device_node), "/dev/dri/%s", entry->d_name);
	}
	if (folder)
		closedir(folder);
	return best >= 0;
}

static int by_line(const void *left, const void *right)
{
	return (*(const struct check *const *)left)->line - (*(const struct check *const *)right)->line;
}

static bool is_wanted(const char *name, int count, char **wanted)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(name, wanted[i]))
			return true;
	return count == 0;
}

static int usage(const char *self, int code)
{
	fprintf(code ? stderr : stdout,
		"usage: %s [--device PCI-ADDRESS] [--repeat N] [--list] [CHECK...]\n"
		"Runs the checks (default: all) on an xe device (default: the first) and reports TAP.\n"
		"Exit code: 0 all passed, 1 some failed, 2 could not run.\n",
		self);
	return code;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "device", required_argument, NULL, 'd' },
						 { "repeat", required_argument, NULL, 'r' },
						 { "list", no_argument, NULL, 'l' },
						 { "help", no_argument, NULL, 'h' },
						 {} };
	size_t total = __stop_checks - __start_checks, number = 0, failed = 0;
	const struct check *checks[total];
	const char *wanted_device = NULL;
	unsigned repeat = 1;
	bool list = false;

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'd')
			wanted_device = optarg;
		else if (option == 'r')
			repeat = strtoul(optarg, NULL, 10);
		else if (option == 'l')
			list = true;
		else
			return usage(argv[0], option == 'h' ? 0 : 2);
	}
	memcpy(checks, __start_checks, sizeof(checks));
	qsort(checks, total, sizeof(*checks), by_line);
	if (list) {
		for (size_t i = 0; i < total; i++)
			printf("%s\n", checks[i]->name);
		return 0;
	}
	printf("TAP version 13\n");
	if (!find_device(wanted_device)) {
		printf("Bail out! no render node of an xe device%s%s\n", wanted_device ? " at " : "", wanted_device ?: "");
		return 2;
	}
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (report == MAP_FAILED || kernel_log < 0) {
		printf("Bail out! %s: %s\n", report == MAP_FAILED ? "mmap" : "/dev/kmsg", strerror(errno));
		return 2;
	}
	lseek(kernel_log, 0, SEEK_END);
	printf("# %s on %s (%s)\n", program_invocation_short_name, device_pci, device_node);
	while (repeat--)
		for (size_t i = 0; i < total; i++)
			if (is_wanted(checks[i]->name, argc - optind, argv + optind))
				failed += !run_check(checks[i], ++number);
	printf("1..%zu\n", number);
	return failed ? 1 : 0;
}

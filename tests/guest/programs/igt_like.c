/*
 * A program that behaves towards its runner as an IGT test does: lists subtests, runs one, ends with IGT's exit codes.
 * Each subtest is one thing that a runner has to survive.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* From the library that stands for IGT's: what makes this program recognisable as a test. */
int igt_like(void);

static const char *const subtests[] = {"passes", "skips",   "fails",  "crashes", "hangs",
				       "complains", "unbinds", "panics", "reboots", "last"};

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

static int finish(const char *name, const char *result, int code)
{
	printf("Subtest %s: %s (0.001s)\n", name, result);
	return code;
}

static int run(const char *name)
{
	printf("Starting subtest: %s\n", name);
	fflush(stdout);
	if (!strcmp(name, "skips")) {
		fprintf(stderr, "Test requirement not met in function run, file igt_like.c:1:\nTest requirement: a moon\n");
		return finish(name, "SKIP", 77);
	}
	if (!strcmp(name, "fails")) {
		fprintf(stderr, "Test assertion failure function run, file igt_like.c:2:\nFailed assertion: 1 == 2\n");
		return finish(name, "FAIL", 98);
	}
	if (!strcmp(name, "crashes"))
		raise(SIGSEGV);
	if (!strcmp(name, "hangs"))
		for (;;)
			pause();
	if (!strcmp(name, "complains"))
		put("/dev/kmsg", "<3>igt_like: *ERROR* made up\n");
	if (!strcmp(name, "unbinds"))
		return system("for i in /sys/bus/pci/drivers/pci-stub/*:*; do echo ${i##*/} >${i%/*}/unbind; done")
			? finish(name, "FAIL", 98) : finish(name, "SUCCESS", 0);
	if (!strcmp(name, "panics"))
		put("/proc/sysrq-trigger", "c");
	if (!strcmp(name, "reboots"))
		put("/proc/sysrq-trigger", "b");
	return finish(name, "SUCCESS", 0);
}

int main(int argc, char **argv)
{
	size_t i;

	if (igt_like() && argc == 2 && !strcmp(argv[1], "--list-subtests")) {
		for (i = 0; i < sizeof(subtests) / sizeof(*subtests); i++)
			puts(subtests[i]);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--run-subtest"))
		return run(argv[2]);
	return 79;
}

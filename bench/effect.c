// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * effect MODULE.ko PARAMETERS FILE [WORD]: load a module and prints the nanoseconds
 * until it is in effect: with WORD, until writing that to FILE has succeeded (an
 * update), else until FILE reads 0 (the transition of a live patch).
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS		500000
#define TIMEOUT_NS	(UINT64_C(120) * 1000000000)

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static int open_file(const char *path, int flags)
{
	int file = open(path, flags);

	if (file < 0)
		err(1, "%s", path);
	return file;
}

static void await_zero(const char *path, uint64_t deadline)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	int file = open_file(path, O_RDONLY);
	char byte;

	for (;;) {
		if (pread(file, &byte, 1, 0) != 1)
			err(1, "reading %s", path);
		if (byte == '0')
			return;
		if (now() > deadline)
			errx(1, "%s is not 0 after two minutes", path);
		nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	uint64_t start;
	int module;

	if (argc < 4 || argc > 5)
		errx(2, "usage: %s MODULE.ko PARAMETERS FILE [WORD]", argv[0]);
	module = open_file(argv[1], O_RDONLY);
	start = now();
	if (syscall(__NR_finit_module, module, argv[2], 0))
		err(1, "loading %s", argv[1]);
	if (argc == 4)
		await_zero(argv[3], start + TIMEOUT_NS);
	else if (write(open_file(argv[3], O_WRONLY), argv[4], strlen(argv[4])) < 0)
		err(1, "writing %s to %s", argv[4], argv[3]);
	printf("%llu\n", (unsigned long long)(now() - start));
	return 0;
}

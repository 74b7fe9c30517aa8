// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * faulty N insmod FILE PARAMETERS | rmmod NAME FLAGS | write FILE WORD | read FILE
 *
 * Does one thing in the kernel while its N-th allocation fails
 * (Documentation/fault-injection, fail-nth), or, where N is "any", while those
 * fail that failslab picks. Nothing else of this program runs meanwhile. The
 * first line of the output is the error number and what is left of N, which is
 * above 0 where fewer allocations than N were made; then follows what was read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static char text[1 << 20];
static size_t length;

static long read_all(int file)
{
	long got;

	do {
		got = read(file, text + length, sizeof(text) - length);
		if (got > 0)
			length += got;
	} while (got > 0);
	return got;
}

int main(int argc, char **argv)
{
	int any, arm, file = 0;
	char left[16] = "";
	long result;
	int error;

	if (argc < 4)
		return 2;
	any = !strcmp(argv[1], "any");
	arm = open(any ? "/proc/self/make-it-fail" : "/proc/self/fail-nth", O_RDWR);
	if (strcmp(argv[2], "rmmod"))
		file = open(argv[3], strcmp(argv[2], "write") ? O_RDONLY : O_WRONLY);
	if (file < 0) {
		printf("%d 1\n", errno);
		return 0;
	}

	/* A page of its own that came late would count, and fail. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE) || write(arm, any ? "1" : argv[1], any ? 1 : strlen(argv[1])) < 0)
		return 2;
	if (!strcmp(argv[2], "insmod"))
		result = syscall(SYS_finit_module, file, argv[4], 0);
	else if (!strcmp(argv[2], "rmmod"))
		result = syscall(SYS_delete_module, argv[3], O_NONBLOCK | atoi(argv[4]));
	else if (!strcmp(argv[2], "write"))
		result = write(file, argv[4], strlen(argv[4]));
	else
		result = read_all(file);
	error = result < 0 ? errno : 0;

	if (pread(arm, left, sizeof(left) - 1, 0) < 0 || pwrite(arm, "0", 1, 0) < 0)
		return 2;
	printf("%d %d\n", error, atoi(left));
	fwrite(text, 1, length, stdout);
	return 0;
}

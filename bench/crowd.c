// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * crowd N: N threads that sleep, a quarter of them each in nanosleep, futex, poll and
 * read; says "ready" when all do, and half a second has passed for the last one.
 */
#include <err.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int pipe_ends[2];
static sem_t never, started;

static void *sleeper(void *data)
{
	const struct timespec long_time = { .tv_sec = 1000000 };
	char byte;

	sem_post(&started);
	for (;;)
		switch ((uintptr_t)data % 4) {
		case 0:
			nanosleep(&long_time, NULL);
			break;
		case 1:
			sem_wait(&never);
			break;
		case 2:
			poll(NULL, 0, -1);
			break;
		default:
			if (read(pipe_ends[0], &byte, 1) < 0)
				err(1, "read");
		}
	return NULL;
}

int main(int argc, char **argv)
{
	int i, error, count = argc == 2 ? atoi(argv[1]) : 0;
	pthread_attr_t attributes;
	pthread_t thread;

	if (count < 1)
		errx(2, "usage: %s THREADS", argv[0]);
	if (pipe(pipe_ends) || sem_init(&never, 0, 0) || sem_init(&started, 0, 0))
		err(1, "pipe or semaphore");
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
	/* This thread sleeps, too. */
	for (i = 1; i < count; i++) {
		error = pthread_create(&thread, &attributes, sleeper, (void *)(uintptr_t)i);
		if (error)
			errx(1, "thread %d: error %d", i, error);
	}
	for (i = 1; i < count; i++)
		sem_wait(&started);
	usleep(500000);
	puts("ready");
	fflush(stdout);
	sleeper(NULL);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads that have left the list of threads: unlisted.c */
#ifndef KSPLICED_UNLISTED_H
#define KSPLICED_UNLISTED_H

#include <linux/sched.h>

typedef void (*kspliced_visit_task_fn)(struct task_struct *task, void *data);
int kspliced_unlisted_init(void);
unsigned long kspliced_for_unlisted(unsigned long listed,
				    kspliced_visit_task_fn visit, void *data);

#endif /* KSPLICED_UNLISTED_H */

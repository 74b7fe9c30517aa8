// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Threads that are not in the list of threads any more. One that ends leaves the
 * list in exit_notify() at the earliest, and goes on in do_exit(), where it may
 * sleep. RCU-tasks has to wait for such as well, so it keeps account of all that
 * are between exit_tasks_rcu_start(), before exit_notify(), and
 * exit_tasks_rcu_finish(); from there on they are not preempted until they are
 * dead (do_exit(), the same in 6.1, 6.12 and 7.3). That account is read here,
 * while the machine is stopped: nobody is half-way in changing it, as that is
 * done with interrupts disabled.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/list.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/srcu.h>

#include "symbols.h"
#include "unlisted.h"

#if defined(KSPLICED_EXIT_LISTS)

static struct list_head __percpu *lists;

/**
 * kspliced_unlisted_init() - find the lists of RCU-tasks
 *
 * Return: 0, or -ENOENT after a message.
 */
int __init kspliced_unlisted_init(void)
{
	const struct list_head *self = &current->rcu_tasks_exit_list;
	unsigned long offset;

	/* They are private, but who comes to that of its CPU is first behind its head. */
	preempt_disable();
	static_call(kspliced_exit_start)();
	offset = (unsigned long)self->prev - per_cpu_offset(smp_processor_id());
	static_call(kspliced_exit_finish)();
	preempt_enable();

	lists = (struct list_head __percpu __force *)offset;
	if (offset - kspliced_rcu_tasks < PAGE_SIZE)
		return 0;
	pr_err("cannot load: the lists of exiting threads are not among what RCU-tasks has for each CPU\n");
	return -ENOENT;
}

/**
 * kspliced_for_unlisted() - visit the threads that have left the list of threads
 * @listed: unused
 * @visit: called with each of those that are not dead
 * @data: passed to @visit
 *
 * Context: under stop_machine().
 * Return: 0, there are no others.
 */
unsigned long kspliced_for_unlisted(unsigned long listed,
				    kspliced_visit_task_fn visit, void *data)
{
	const struct list_head *head, *node;
	struct task_struct *task;
	int cpu;

	for_each_possible_cpu(cpu) {
		head = per_cpu_ptr(lists, cpu);
		list_for_each(node, head) {
			/* On a stack: how rcu_tasks_postscan() marks its place. */
			if (is_vmalloc_addr(node))
				continue;
			task = container_of(node, struct task_struct,
					    rcu_tasks_exit_list);
			if (!pid_alive(task))
				visit(task, data);
		}
	}
	return 0;
}

#elif defined(KSPLICED_EXIT_SRCU)

int __init kspliced_unlisted_init(void)
{
	return 0;
}

/* Whether a counter is atomic depends on the kernel; that it is a long does not. */
#define COUNT(counter)	READ_ONCE(*(const unsigned long *)&(counter))

/**
 * kspliced_for_unlisted() - count the threads that have left the list of threads
 * @listed: how many of the list are ending, and zombies
 * @visit: unused, nobody knows who they are
 * @data: unused
 *
 * One that has told RCU-tasks of itself and is not zombie yet counts as well.
 *
 * Context: under stop_machine().
 * Return: how many there are.
 */
unsigned long kspliced_for_unlisted(unsigned long listed,
				    kspliced_visit_task_fn visit, void *data)
{
	const struct srcu_data *counters;
	unsigned long all = 0;
	int cpu, i;

	for_each_possible_cpu(cpu) {
		counters = per_cpu_ptr(kspliced_exit_srcu->sda, cpu);
		for (i = 0; i < ARRAY_SIZE(counters->srcu_lock_count); i++)
			all += COUNT(counters->srcu_lock_count[i]) -
			       COUNT(counters->srcu_unlock_count[i]);
	}
	return all - listed;
}

#else

int __init kspliced_unlisted_init(void)
{
	pr_info("this kernel does not tell of threads that have left the list of threads; they are not looked for\n");
	return 0;
}

unsigned long kspliced_for_unlisted(unsigned long listed,
				    kspliced_visit_task_fn visit, void *data)
{
	return 0;
}

#endif

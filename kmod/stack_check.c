// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is a thread inside code that is about to change? Each stack is unwound where
 * the kernel vouches for the result, and scanned word by word where it does
 * not (Arnold and Kaashoek, "Ksplice", EuroSys 2009, section 5.2).
 *
 * Everything here runs under stop_machine(): no allocation, no lock, no
 * message. What is found is recorded in the attempt.
 */
#include <linux/cpumask.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <asm/asm.h>

#include "attempt.h"
#include "owner.h"
#include "site.h"
#include "stack_check.h"
#include "state.h"
#include "symbols.h"
#include "unlisted.h"

/* Frames of a stopper thread under the switch; there are about eight. */
#define SELF_DEPTH	32

/* What is known of the stack of a thread. */
struct trace {
	struct task_struct *task;
	const unsigned long *entries;	/* return addresses, innermost first */
	unsigned int nr;
	bool reliable;			/* these are all; else they were found by a scan */
};

static void record(struct kspliced_attempt *attempt, const struct trace *trace,
		   unsigned long addr, const struct kspliced_site *site)
{
	int index = atomic_fetch_inc(&attempt->nr_conflicts);
	struct kspliced_conflict *conflict;

	if (index >= KSPLICED_MAX_REPORTS)
		return;
	conflict = &attempt->conflicts[index];
	conflict->thread = get_pid(task_pid(trace->task));
	conflict->pid = trace->task->pid;
	strscpy(conflict->comm, trace->task->comm, sizeof(conflict->comm));
	conflict->addr = addr;
	conflict->span = site ? site->span : NULL;
	conflict->reliable = trace->reliable;
	conflict->nr_trace = min_t(unsigned int, trace->nr, KSPLICED_MAX_TRACE);
	memcpy(conflict->trace, trace->entries,
	       conflict->nr_trace * sizeof(*trace->entries));
}

/* Whether an address of @trace conflicts; the first one is recorded. */
static bool check_trace(struct kspliced_attempt *attempt,
			const struct trace *trace)
{
	const struct kspliced_live *out = attempt->out;
	const struct kspliced_site *site;
	unsigned long addr;
	unsigned int i;

	for (i = 0; i < trace->nr; i++) {
		addr = trace->entries[i];
		site = NULL;
		if (attempt->in)
			site = kspliced_find_site(attempt->in, addr);
		if (!site && out)
			site = kspliced_find_site(out, addr);
		if (!site &&
		    !(out && kspliced_text_owner(addr) == out->update->owner) &&
		    !kspliced_return_trampoline(addr))
			continue;
		record(attempt, trace, addr, site);
		return true;
	}
	return false;
}

/*
 * Read every word from @from up to the user's registers: what user space put
 * into those is not a return address.
 */
static void scan(struct kspliced_attempt *attempt, struct task_struct *task,
		 unsigned long from)
{
	const unsigned long *word = (const unsigned long *)ALIGN(from, sizeof(*word));
	const unsigned long *end = (const unsigned long *)task_pt_regs(task);
	unsigned long value;
	const struct trace found = { .task = task, .entries = &value, .nr = 1 };

	for (; word < end; word++) {
		/* No address of the kernel is positive. */
		value = READ_ONCE_NOCHECK(*word);
		if ((long)value < 0 && check_trace(attempt, &found))
			return;
	}
}

/* @nr: what the unwinder returned, negative where it does not vouch for it. */
static void check_stack(struct kspliced_attempt *attempt,
			struct task_struct *task, const unsigned long *entries,
			int nr, unsigned long stack_pointer)
{
	const struct trace trace = {
		.task = task,
		.entries = entries,
		.nr = nr,
		.reliable = true,
	};

	if (nr < 0)
		scan(attempt, task, stack_pointer);
	else
		check_trace(attempt, &trace);
}

/**
 * kspliced_check_self() - check the stack that this CPU is running on
 * @attempt: the attempt at hand
 *
 * Each stopper thread checks itself, as no other CPU can unwind a thread that
 * runs.
 */
void kspliced_check_self(struct kspliced_attempt *attempt)
{
	unsigned long entries[SELF_DEPTH];
	int nr;

	nr = static_call(kspliced_stack_trace)(current, entries, SELF_DEPTH);
	check_stack(attempt, current, entries, nr, current_stack_pointer);
}

static void check_task(struct kspliced_attempt *attempt,
		       struct task_struct *task)
{
	int nr;

	/* The stopper of an online CPU, which checks itself. */
	if (task->on_cpu)
		return;
	/* A zombie has no stack any more: its trace is empty. */
	nr = static_call(kspliced_stack_trace)(task, attempt->entries,
					       KSPLICED_MAX_DEPTH);
	check_stack(attempt, task, attempt->entries, nr, task->thread.sp);
}

static void visit_unlisted(struct task_struct *task, void *attempt)
{
	check_task(attempt, task);
}

/* A thread of which nobody knows more than that it is in do_exit(). */
static void record_unknown(struct kspliced_attempt *attempt)
{
	int index = atomic_fetch_inc(&attempt->nr_conflicts);
	struct kspliced_conflict *conflict;

	if (index >= KSPLICED_MAX_REPORTS)
		return;
	conflict = &attempt->conflicts[index];
	strscpy(conflict->comm, "exiting", sizeof(conflict->comm));
	strscpy(conflict->where, "do_exit+0x0", sizeof(conflict->where));
	conflict->reliable = true;
}

/* Past the point in do_exit() from which on it may leave the list of threads? */
static bool is_ending(const struct task_struct *task)
{
	return task->exit_state && READ_ONCE(task->__state) != TASK_DEAD;
}

/* Nothing that is found from here on would be shown, and all CPUs wait. */
static bool is_full(const struct kspliced_attempt *attempt)
{
	return atomic_read(&attempt->nr_conflicts) >= KSPLICED_MAX_REPORTS;
}

/**
 * kspliced_check_tasks() - check the stack of every thread that does not run
 * @attempt: the attempt at hand
 *
 * Whoever has left the list of threads and is not dead yet counts, too; where
 * the kernel tells only that there is somebody, that is a conflict.
 *
 * The idle task of a CPU that is offline counts as running, so nobody knows where
 * its stack ends: all of that is scanned, with what has been left there.
 */
void kspliced_check_tasks(struct kspliced_attempt *attempt)
{
	struct task_struct *process, *task;
	unsigned long listed = 0, unknown;
	int cpu;

	rcu_read_lock();
	for_each_process_thread(process, task) {
		check_task(attempt, task);
		listed += is_ending(task);
		if (is_full(attempt))
			goto unlock;
	}
unlock:
	rcu_read_unlock();

	unknown = kspliced_for_unlisted(listed, visit_unlisted, attempt);
	for (; unknown && !is_full(attempt); unknown--)
		record_unknown(attempt);

	for_each_possible_cpu(cpu) {
		task = static_call(kspliced_idle_task)(cpu);
		if (cpu_online(cpu))
			check_task(attempt, task);
		else if (task)
			scan(attempt, task, (unsigned long)task_stack_page(task));
	}
}

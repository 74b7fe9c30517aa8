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

#include "kspliced.h"

/* Frames of a stopper thread under the switch; there are about eight. */
#define SELF_DEPTH	32

static void record(struct kspliced_attempt *attempt, struct task_struct *task,
		   unsigned long addr, const struct kspliced_site *site,
		   bool reliable)
{
	int index = atomic_fetch_inc(&attempt->nr_conflicts);
	struct kspliced_conflict *conflict;

	if (index >= KSPLICED_MAX_REPORTS)
		return;
	conflict = &attempt->conflicts[index];
	conflict->pid = task->pid;
	strscpy(conflict->comm, task->comm, sizeof(conflict->comm));
	conflict->addr = addr;
	conflict->span = site ? site->span : NULL;
	conflict->reliable = reliable;
}

/* Whether @addr conflicts; the first conflict of a thread is recorded. */
static bool check_address(struct kspliced_attempt *attempt,
			  struct task_struct *task, unsigned long addr,
			  bool reliable)
{
	const struct kspliced_site *site = NULL;

	if (attempt->in)
		site = kspliced_find_site(attempt->in, addr);
	if (!site && attempt->out)
		site = kspliced_find_site(attempt->out, addr);
	if (!site &&
	    !(attempt->out &&
	      kspliced_text_owner(addr) == attempt->out->update->owner) &&
	    !(!reliable && kspliced_return_trampoline(addr)))
		return false;
	record(attempt, task, addr, site, reliable);
	return true;
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

	for (; word < end; word++)
		if (check_address(attempt, task, READ_ONCE_NOCHECK(*word), false))
			return;
}

static void check_trace(struct kspliced_attempt *attempt,
			struct task_struct *task, const unsigned long *entries,
			int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (check_address(attempt, task, entries[i], true))
			return;
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
	if (nr >= 0)
		check_trace(attempt, current, entries, nr);
	else
		scan(attempt, current, current_stack_pointer);
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
	if (nr >= 0)
		check_trace(attempt, task, attempt->entries, nr);
	else
		scan(attempt, task, task->thread.sp);
}

/**
 * kspliced_check_tasks() - check the stack of every thread that does not run
 * @attempt: the attempt at hand
 *
 * The idle task of a CPU that is offline is left out: it comes back through
 * the start of the CPU, which serialises.
 */
void kspliced_check_tasks(struct kspliced_attempt *attempt)
{
	struct task_struct *process, *task;
	int cpu;

	rcu_read_lock();
	for_each_process_thread(process, task)
		check_task(attempt, task);
	rcu_read_unlock();

	for_each_online_cpu(cpu)
		check_task(attempt, static_call(kspliced_idle_task)(cpu));
}

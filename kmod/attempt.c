// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The report of an attempt at a switch: room for it, what is recorded while the
 * machine is stopped, what is worked out afterwards, and who is asked to leave.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/error-injection.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/string.h>

#include "attempt.h"
#include "state.h"
#include "symbols.h"

/**
 * kspliced_attempt_new() - allocate all that a switch records
 * @in: the update that is to be applied, or NULL
 * @out: the update that is to leave, or NULL
 *
 * Return: the attempt, or NULL.
 */
struct kspliced_attempt *kspliced_attempt_new(struct kspliced_live *in,
					      struct kspliced_live *out)
{
	struct kspliced_attempt *attempt;

	attempt = kvzalloc(sizeof(*attempt), GFP_KERNEL);
	if (attempt) {
		attempt->in = in;
		attempt->out = out;
		/* Until somebody decides: 0 would mean success. */
		attempt->cause = KSPLICED_UNEXPECTED;
	}
	return attempt;
}

ALLOW_ERROR_INJECTION(kspliced_attempt_new, NULL);

static unsigned int nr_recorded(const struct kspliced_attempt *attempt)
{
	return min(atomic_read(&attempt->nr_conflicts), KSPLICED_MAX_REPORTS);
}

/**
 * kspliced_attempt_free() - free an attempt
 * @attempt: the attempt, or NULL
 */
void kspliced_attempt_free(struct kspliced_attempt *attempt)
{
	unsigned int i;

	if (!attempt)
		return;
	for (i = 0; i < nr_recorded(attempt); i++)
		put_pid(attempt->conflicts[i].thread);
	kvfree(attempt);
}

/**
 * kspliced_record_mismatch() - record bytes that are not the expected ones
 * @attempt: the attempt at hand
 * @name: of the function or datum
 * @target: that owns it
 * @offset: of the first byte that differs
 * @len: how many bytes follow from there on
 *
 * Return: the report, to be filled with the bytes, or NULL where there is no
 * room for another.
 */
struct kspliced_mismatch *kspliced_record_mismatch(struct kspliced_attempt *attempt,
						   const char *name,
						   const char *target,
						   u32 offset, u32 len)
{
	struct kspliced_mismatch *mismatch;

	if (attempt->nr_mismatches == KSPLICED_MAX_REPORTS)
		return NULL;
	mismatch = &attempt->mismatches[attempt->nr_mismatches++];
	strscpy(mismatch->name, name, sizeof(mismatch->name));
	strscpy(mismatch->target, target, sizeof(mismatch->target));
	mismatch->offset = offset;
	mismatch->len = min_t(u32, len, KSPLICED_MAX_EVIDENCE);
	return mismatch;
}

/**
 * kspliced_record_probe() - record a kprobe in the way
 * @attempt: the attempt at hand
 * @span: the function that it is in
 * @offset: of the probe, in @span
 */
void kspliced_record_probe(struct kspliced_attempt *attempt,
			   const struct kspliced_span *span, u32 offset)
{
	struct kspliced_probe *probe;

	if (attempt->nr_probes == KSPLICED_MAX_REPORTS)
		return;
	probe = &attempt->probes[attempt->nr_probes++];
	strscpy(probe->name, span->name, sizeof(probe->name));
	strscpy(probe->target, span->target, sizeof(probe->target));
	probe->offset = offset;
}

/**
 * kspliced_attempt_explain() - name the functions of the conflicts
 * @attempt: a failed attempt, the machine runs again
 */
void kspliced_attempt_explain(struct kspliced_attempt *attempt)
{
	struct kspliced_conflict *conflict;
	char symbol[KSYM_SYMBOL_LEN];
	unsigned int i;

	for (i = 0; i < nr_recorded(attempt); i++) {
		conflict = &attempt->conflicts[i];
		if (conflict->where[0])		/* known before */
			continue;
		if (conflict->span) {
			snprintf(conflict->where, sizeof(conflict->where),
				 "%s+0x%lx", conflict->span->name,
				 conflict->addr - conflict->span->addr);
			continue;
		}
		/* name+0xOFF/0xSIZE [module] */
		sprint_symbol(symbol, conflict->addr);
		symbol[strcspn(symbol, "/ ")] = '\0';
		strscpy(conflict->where, symbol, sizeof(conflict->where));
	}
}

/*
 * As a signal would, but without one: the thread leaves an interruptible sleep,
 * returns to user mode and takes the system call up again (the kernel's own live
 * patching does the same, klp_send_signals()). A kernel thread is woken only.
 */
static void nudge(struct task_struct *task)
{
	if (task->flags & PF_KTHREAD)
		static_call(kspliced_wake_up_state)(task, TASK_INTERRUPTIBLE);
	else if (!test_and_set_tsk_thread_flag(task, TIF_NOTIFY_SIGNAL) &&
		 !static_call(kspliced_wake_up_state)(task, TASK_INTERRUPTIBLE))
		kick_process(task);
}

/**
 * kspliced_nudge() - ask the threads of the last conflicts to leave
 * @live: a registered update
 *
 * System calls that a signal handler would not let go on (signal(7)) end with
 * EINTR.
 *
 * Return: 0, or -ESRCH where there is no such thread.
 */
int kspliced_nudge(struct kspliced_live *live)
{
	struct task_struct *task;
	int error = -ESRCH;
	unsigned int i;

	mutex_lock(&kspliced_lock);
	for (i = 0; live->report && i < nr_recorded(live->report); i++) {
		task = get_pid_task(live->report->conflicts[i].thread, PIDTYPE_PID);
		if (!task)
			continue;
		nudge(task);
		put_task_struct(task);
		error = 0;
	}
	mutex_unlock(&kspliced_lock);
	return error;
}

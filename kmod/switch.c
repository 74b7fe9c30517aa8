// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One switch: pin what must stay, stop the machine, verify, check all stacks,
 * write, report, let grace periods pass, release.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/error-injection.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/panic.h>
#include <linux/processor.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <asm/sync_core.h>

#include "attempt.h"
#include "data.h"
#include "hold.h"
#include "pin.h"
#include "poke.h"
#include "redirect.h"
#include "site.h"
#include "stack_check.h"
#include "state.h"
#include "switch.h"
#include "symbols.h"
#include "verify.h"

/*
 * One switch at a time, with the grace periods that follow it. kspliced_lock
 * is taken inside and held for less, so that files can be read meanwhile.
 */
static DEFINE_MUTEX(switch_lock);

/* Runs on the last CPU to arrive, with all others held. */
static enum kspliced_cause decide(struct kspliced_attempt *attempt)
{
	if (attempt->out) {
		kspliced_verify_jumps(attempt);
		kspliced_verify_values(attempt);
	}
	if (attempt->in) {
		kspliced_verify_spans(attempt);
		kspliced_verify_data(attempt);
	}
	if (attempt->nr_mismatches)
		return KSPLICED_NO_MATCH;
	if (attempt->nr_probes)
		return KSPLICED_PROBED;
	kspliced_check_tasks(attempt);
	if (atomic_read(&attempt->nr_conflicts))
		return KSPLICED_CODE_BUSY;

	/* Nothing fails from here on. */
	if (attempt->in)
		kspliced_keep_originals(attempt);
	kspliced_change_text(attempt);
	if (attempt->out)
		kspliced_restore_data(attempt->out);
	if (attempt->in)
		kspliced_write_data(attempt->in);
	return KSPLICED_OK;
}

/*
 * On every CPU, interrupts off. Each checks the stack it runs on; the last one
 * does the rest, so that it knows what all the others found.
 */
static int switch_cpu(void *data)
{
	struct kspliced_attempt *attempt = data;
	u64 now = ktime_get_ns();

	/* The first to come sets it; the clock never reads 0 after boot. */
	cmpxchg(&attempt->start_ns, 0, now);
	kspliced_check_self(attempt);
	if (atomic_inc_return(&attempt->arrived) == attempt->nr_cpus) {
		attempt->cause = decide(attempt);
		attempt->pause_ns = ktime_get_ns() - attempt->start_ns;
		/* Pairs with the acquire of the CPUs that wait. */
		smp_store_release(&attempt->done, true);
	} else {
		/* The text is as it will be when this ends. */
		kspliced_follow(attempt);
	}
	/* Before this CPU can reach text that changed. */
	sync_core();
	return 0;
}

static noinline int stop_and_switch(struct kspliced_attempt *attempt)
{
	int error = 0;

	/*
	 * The kernel's own order: kprobes, ftrace, CPU hotplug, then text. That is
	 * how register_kprobe() and arm_kprobe_ftrace() nest them from 6.1 on, and
	 * the optimizer of kprobes. Whoever has kprobe_mutex waits for nothing of
	 * ours: not for kspliced_lock, nor for the list of module notifiers, where
	 * kprobes takes it inside, and so do we.
	 */
	kspliced_lock_probes();
	kspliced_lock_entries();
	if (attempt->in && kspliced_for_redirected(attempt->in, NULL, NULL)) {
		attempt->cause = KSPLICED_REDIRECTED;
		goto unlock;
	}
	cpus_read_lock();
	kspliced_lock_text();
	attempt->nr_cpus = num_online_cpus();
	error = static_call(kspliced_stop_machine)(switch_cpu, attempt,
						   cpu_online_mask);
	kspliced_unlock_text();
	cpus_read_unlock();
unlock:
	kspliced_unlock_entries();
	kspliced_unlock_probes();
	return error;
}

ALLOW_ERROR_INJECTION(stop_and_switch, ERRNO);

static void report_success(const struct kspliced_attempt *attempt,
			   const struct kspliced_live *subject)
{
	const char *replaced = attempt->in && attempt->out ?
			       attempt->out->update->owner->name : NULL;

	pr_info("%s %s%s%s: %u spans, all CPUs held for %llu us\n",
		attempt->in ? "applied" : "reversed",
		subject->update->owner->name,
		replaced ? ", replacing " : "", replaced ?: "",
		subject->update->nr_spans,
		div_u64(attempt->pause_ns, NSEC_PER_USEC));
}

/* The switch took place: move the stages; @gone is what may be released. */
static void commit(struct kspliced_attempt *attempt,
		   struct kspliced_live *subject, struct kspliced_pins *gone)
{
	report_success(attempt, subject);
	subject->pause_ns = attempt->pause_ns;
	if (attempt->out) {
		WRITE_ONCE(attempt->out->stage, KSPLICED_REVERSED);
		*gone = attempt->out->pins;
		memset(&attempt->out->pins, 0, sizeof(attempt->out->pins));
	}
	if (attempt->in) {
		/* Who reads of an oops sees that the source does not tell all. */
		add_taint(TAINT_LIVEPATCH, LOCKDEP_STILL_OK);
		kspliced_keep(attempt->in);
		WRITE_ONCE(attempt->in->stage, KSPLICED_APPLIED);
	}
	kspliced_set_applied(attempt->in);
}

/* Everything that the switch needs, before the machine stops. */
static enum kspliced_cause prepare(struct kspliced_live *in,
				   struct kspliced_live *out)
{
	const struct kspliced_span *clash;
	enum kspliced_cause cause;

	clash = in && out ? kspliced_clash(in, out) : NULL;
	if (clash) {
		pr_err("update %s: its jump in %s overlaps that of %s\n",
		       in->update->owner->name, clash->name,
		       out->update->owner->name);
		return KSPLICED_UNEXPECTED;
	}
	cause = in ? kspliced_pin(in) : KSPLICED_OK;
	if (cause != KSPLICED_OK)
		return cause;
	if ((!in || !kspliced_map_data(in)) && (!out || !kspliced_map_data(out)))
		return KSPLICED_OK;
	if (in)
		kspliced_unpin(&in->pins);
	return KSPLICED_OUT_OF_MEMORY;
}

static void unmap(struct kspliced_live *in, struct kspliced_live *out)
{
	if (in)
		kspliced_unmap_data(in);
	if (out)
		kspliced_unmap_data(out);
}

static enum kspliced_cause run(struct kspliced_live *in,
			       struct kspliced_live *out,
			       struct kspliced_pins *gone)
{
	struct kspliced_live *subject = in ?: out;
	struct kspliced_attempt *attempt;
	enum kspliced_cause cause;
	int error;

	attempt = kspliced_attempt_new(in, out);
	if (!attempt)
		return KSPLICED_OUT_OF_MEMORY;
	cause = prepare(in, out);
	if (cause != KSPLICED_OK)
		goto free;

	error = stop_and_switch(attempt);
	cause = attempt->cause;
	if (error) {
		pr_err("update %s: the machine could not be stopped (error %d)\n",
		       subject->update->owner->name, error);
		cause = KSPLICED_UNEXPECTED;
	}
	if (cause == KSPLICED_OK) {
		commit(attempt, subject, gone);
		goto free;
	}
	if (in)
		kspliced_unpin(&in->pins);
	if (cause != KSPLICED_UNEXPECTED) {
		kspliced_attempt_explain(attempt);
		subject->report = attempt;
		attempt = NULL;
	}
free:
	unmap(in, out);
	kspliced_attempt_free(attempt);
	return cause;
}

/*
 * Nothing runs the code of the update that left, bar what the stacks do not
 * show: a thread in a trampoline of ftrace or BPF. RCU-tasks waits for those.
 */
static void release(struct kspliced_pins *gone)
{
	if (!gone->owner)
		return;
	synchronize_rcu_tasks();
	synchronize_rcu();
	kspliced_unpin(gone);
}

static int cause_to_errno(enum kspliced_cause cause)
{
	switch (cause) {
	case KSPLICED_OK:
		return 0;
	case KSPLICED_NO_MATCH:
		return -EILSEQ;
	case KSPLICED_CODE_BUSY:
		return -EBUSY;
	case KSPLICED_PROBED:
		return -ETXTBSY;
	case KSPLICED_REDIRECTED:
		return -EADDRINUSE;
	case KSPLICED_OUT_OF_MEMORY:
		return -ENOMEM;
	case KSPLICED_TARGET_GONE:
		return -ENODEV;
	case KSPLICED_ARRIVED:
		return -EAGAIN;
	case KSPLICED_ALREADY:
		return -EALREADY;
	case KSPLICED_UNEXPECTED:
		break;
	}
	return -EIO;
}

static int attempt_switch(struct kspliced_live *live, bool apply)
{
	struct kspliced_pins gone = { };
	enum kspliced_cause cause;
	bool is_applied;

	mutex_lock(&switch_lock);
	mutex_lock(&kspliced_lock);
	kspliced_attempt_free(live->report);
	live->report = NULL;
	is_applied = live->stage == KSPLICED_APPLIED;
	if (apply == is_applied)
		cause = KSPLICED_ALREADY;
	else if (apply)
		cause = run(live, kspliced_applied(), &gone);
	else
		cause = run(NULL, live, &gone);
	live->cause = cause;
	if (cause == KSPLICED_OK)
		kspliced_review_holds();
	mutex_unlock(&kspliced_lock);

	release(&gone);
	mutex_unlock(&switch_lock);
	return cause_to_errno(cause);
}

/**
 * kspliced_apply() - one attempt to make an update live
 * @live: a registered update
 *
 * Another update that is applied is replaced in the same switch. May sleep.
 *
 * Return: 0, or the error number of the abort cause (docs/kernel-core.md).
 */
int kspliced_apply(struct kspliced_live *live)
{
	return attempt_switch(live, true);
}

/**
 * kspliced_reverse() - one attempt to put the original code back
 * @live: a registered update
 *
 * Returns after the grace periods: nothing runs the update's code then, but its
 * module stays. May sleep.
 *
 * Return: 0, or the error number of the abort cause (docs/kernel-core.md).
 */
int kspliced_reverse(struct kspliced_live *live)
{
	return attempt_switch(live, false);
}

/**
 * kspliced_forget() - forget the part of the applied update in a module that goes
 * @mod: a module whose code will be freed
 *
 * Its init failed, or its parameters did, or it is unloaded by force: a pin
 * prevents none of these.
 */
void kspliced_forget(const struct module *mod)
{
	struct kspliced_live *applied;
	struct kspliced_pins *pins;
	unsigned int i;

	mutex_lock(&switch_lock);	/* no grace period goes on that unpins it */
	mutex_lock(&kspliced_lock);
	applied = kspliced_applied();
	if (applied && kspliced_pinned(&applied->pins, mod)) {
		pins = &applied->pins;
		for (i = 0; pins->targets[i] != mod; i++)
			;
		pins->targets[i] = pins->targets[--pins->nr_targets];
		kspliced_forget_sites(applied, mod->name);
		kspliced_forget_constants(applied, mod->name);
		pr_info("update %s: module %s is gone, and its part with it\n",
			applied->update->owner->name, mod->name);
	}
	mutex_unlock(&kspliced_lock);
	mutex_unlock(&switch_lock);
}

/**
 * kspliced_retire() - make sure that no switch uses an update any more
 * @live: a registered update, about to be unregistered
 *
 * An applied update pins its module, so one that is still applied here is
 * being unloaded by force: its code must not go while anything can run it. A
 * jump that is not ours any more cannot be undone by anybody here; waiting for
 * ever beats freeing the code under it.
 */
void kspliced_retire(struct kspliced_live *live)
{
	mutex_lock(&kspliced_lock);
	live->leaving = true;
	if (live->stage == KSPLICED_APPLIED)
		pr_err("update %s is unloaded while applied; reversing it first\n",
		       live->update->owner->name);
	mutex_unlock(&kspliced_lock);

	while (READ_ONCE(live->stage) == KSPLICED_APPLIED &&
	       kspliced_reverse(live))
		msleep(100);

	/* Another update may have replaced this one and be about to unpin it. */
	mutex_lock(&switch_lock);
	mutex_lock(&kspliced_lock);
	kspliced_lose(live);
	mutex_unlock(&kspliced_lock);
	mutex_unlock(&switch_lock);
}

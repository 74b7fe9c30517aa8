/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The report of an attempt at a switch: attempt.c */
#ifndef KSPLICED_ATTEMPT_H
#define KSPLICED_ATTEMPT_H

#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched.h>

#include "state.h"

#define KSPLICED_MAX_REPORTS	64	/* conflicts, mismatches, probes of an attempt */
#define KSPLICED_MAX_TRACE	16	/* frames of a conflict that are shown */
#define KSPLICED_MAX_DEPTH	256	/* frames of a stack; deeper ones are scanned */
#define KSPLICED_MAX_EVIDENCE	16	/* bytes of a mismatch that are shown */
#define KSPLICED_NAME_LEN	160	/* of a function in a report */

/**
 * struct kspliced_conflict - a thread inside code that would change
 * @thread: the thread, which may have ended since
 * @pid: its id in the initial namespace
 * @comm: its name
 * @reliable: the unwinder vouches for the stack; else a word of it was found
 * @addr: the address on its stack
 * @span: the old function that holds @addr, or NULL in the leaving module
 * @where: function and offset, filled in after the machine runs again
 * @nr_trace: number of entries in @trace
 * @trace: return addresses, innermost first
 */
struct kspliced_conflict {
	struct pid *thread;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	bool reliable;
	unsigned long addr;
	const struct kspliced_span *span;
	char where[KSPLICED_NAME_LEN];
	unsigned int nr_trace;
	unsigned long trace[KSPLICED_MAX_TRACE];
};

/**
 * struct kspliced_mismatch - a span or datum whose bytes are not the expected ones
 * @name: of the function or datum
 * @target: "vmlinux" or a module
 * @offset: of the first byte that differs
 * @len: how many bytes are shown
 * @expected: bytes that should stand there
 * @found: bytes that stand there
 */
struct kspliced_mismatch {
	char name[KSPLICED_NAME_LEN];
	char target[MODULE_NAME_LEN];
	u32 offset;
	u32 len;
	u8 expected[KSPLICED_MAX_EVIDENCE];
	u8 found[KSPLICED_MAX_EVIDENCE];
};

/**
 * struct kspliced_probe - a kprobe in the way
 * @name: of the function
 * @target: "vmlinux" or a module
 * @offset: of the probe, in the function
 */
struct kspliced_probe {
	char name[KSPLICED_NAME_LEN];
	char target[MODULE_NAME_LEN];
	u32 offset;
};

/**
 * struct kspliced_attempt - one attempt at a switch, and its report
 * @in: the update that is to be applied, or NULL
 * @out: the update that is to leave, or NULL
 * @nr_cpus: how many CPUs take part
 * @arrived: how many have checked their own stack
 * @done: the verdict stands and the text will not change any more
 * @step: how often the CPUs that wait were asked to serialise
 * @followed: how many have done so this time
 * @start_ns: when the first CPU was held
 * @pause_ns: how long all were
 * @cause: the verdict
 * @nr_conflicts: may exceed what @conflicts holds
 * @nr_mismatches: entries in @mismatches
 * @nr_probes: entries in @probes
 * @conflicts: see there
 * @mismatches: see there
 * @probes: see there
 * @entries: room for one stack trace
 *
 * Everything that the switch needs is allocated before the machine stops.
 */
struct kspliced_attempt {
	struct kspliced_live *in;
	struct kspliced_live *out;
	int nr_cpus;
	atomic_t arrived;
	bool done;
	int step;
	atomic_t followed;
	u64 start_ns;
	u64 pause_ns;
	enum kspliced_cause cause;
	atomic_t nr_conflicts;
	unsigned int nr_mismatches;
	unsigned int nr_probes;
	struct kspliced_conflict conflicts[KSPLICED_MAX_REPORTS];
	struct kspliced_mismatch mismatches[KSPLICED_MAX_REPORTS];
	struct kspliced_probe probes[KSPLICED_MAX_REPORTS];
	unsigned long entries[KSPLICED_MAX_DEPTH];
};

struct kspliced_attempt *kspliced_attempt_new(struct kspliced_live *in,
					      struct kspliced_live *out);
void kspliced_attempt_free(struct kspliced_attempt *attempt);
void kspliced_attempt_explain(struct kspliced_attempt *attempt);
struct kspliced_mismatch *kspliced_record_mismatch(struct kspliced_attempt *attempt,
						   const char *name,
						   const char *target,
						   u32 offset, u32 len);
void kspliced_record_probe(struct kspliced_attempt *attempt,
			   const struct kspliced_span *span, u32 offset);
int kspliced_nudge(struct kspliced_live *live);

#endif /* KSPLICED_ATTEMPT_H */

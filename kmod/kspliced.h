/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the kspliced core share. The contract with user space is
 * docs/kernel-core.md, the contract with update modules kspliced_abi.h.
 */
#ifndef KSPLICED_H
#define KSPLICED_H

#include <linux/atomic.h>
#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kobject.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/stacktrace.h>
#include <linux/static_call.h>
#include <linux/stop_machine.h>
#include <asm/text-patching.h>

#include "kspliced_abi.h"

/* How the kernel keeps account of threads that end (unlisted.c, Kbuild). */
#if defined(CONFIG_TASKS_RCU) && defined(CONFIG_VMAP_STACK) &&	\
	defined(KSPLICED_HAVE_EXIT_LIST)
#define KSPLICED_EXIT_LISTS
#elif defined(CONFIG_TASKS_RCU) && defined(KSPLICED_HAVE_EXIT_SRCU)
#define KSPLICED_EXIT_SRCU
#endif

#define KSPLICED_VERSION	"0.1.0"

#define KSPLICED_MAX_SPANS	65536
#define KSPLICED_MAX_DATA	4096
#define KSPLICED_MAX_DATUM	65536	/* bytes */
#define KSPLICED_MAX_REPORTS	64	/* conflicts, mismatches, probes of an attempt */
#define KSPLICED_MAX_TRACE	16	/* frames of a conflict that are shown */
#define KSPLICED_MAX_DEPTH	256	/* frames of a stack; deeper ones are scanned */
#define KSPLICED_MAX_EVIDENCE	16	/* bytes of a mismatch that are shown */
#define KSPLICED_NAME_LEN	160	/* of a function in a report */
#define KSPLICED_MAX_HOLD	600	/* seconds that a module's load waits */

#define KSPLICED_VMLINUX	"vmlinux"

/* Unexported functions, called directly: these work on a sealed endbr too. */
DECLARE_STATIC_CALL(kspliced_text_poke, text_poke_kgdb);
DECLARE_STATIC_CALL(kspliced_stack_trace, stack_trace_save_tsk_reliable);
DECLARE_STATIC_CALL(kspliced_stop_machine, stop_machine_cpuslocked);
DECLARE_STATIC_CALL(kspliced_idle_task, idle_task);
DECLARE_STATIC_CALL(kspliced_core_kernel_text, core_kernel_text);
DECLARE_STATIC_CALL(kspliced_module_address, __module_address);
DECLARE_STATIC_CALL(kspliced_module_text_address, __module_text_address);
DECLARE_STATIC_CALL(kspliced_find_module, find_module);
DECLARE_STATIC_CALL(kspliced_symbol_size, kallsyms_lookup_size_offset);
DECLARE_STATIC_CALL(kspliced_get_kprobe, get_kprobe);
DECLARE_STATIC_CALL(kspliced_wake_up_state, wake_up_state);
DECLARE_STATIC_CALL(kspliced_ftrace_start, ftrace_rec_iter_start);
DECLARE_STATIC_CALL(kspliced_ftrace_next, ftrace_rec_iter_next);
DECLARE_STATIC_CALL(kspliced_ftrace_record, ftrace_rec_iter_record);
#ifdef KSPLICED_EXIT_LISTS
DECLARE_STATIC_CALL(kspliced_exit_start, exit_tasks_rcu_start);
DECLARE_STATIC_CALL(kspliced_exit_finish, exit_tasks_rcu_finish);
extern unsigned long kspliced_rcu_tasks;	/* an offset into each CPU's data */
#endif
#ifdef KSPLICED_EXIT_SRCU
extern const struct srcu_struct *kspliced_exit_srcu;
#endif

enum kspliced_stage {
	KSPLICED_PREPARING,
	KSPLICED_APPLIED,
	KSPLICED_REVERSED,
};

enum kspliced_cause {
	KSPLICED_OK,
	KSPLICED_NO_MATCH,
	KSPLICED_CODE_BUSY,
	KSPLICED_PROBED,
	KSPLICED_REDIRECTED,
	KSPLICED_OUT_OF_MEMORY,
	KSPLICED_TARGET_GONE,
	KSPLICED_ARRIVED,
	KSPLICED_ALREADY,
	KSPLICED_UNEXPECTED,
};

/**
 * struct kspliced_site - a span with what the core keeps of it
 * @span: the span, in the update module's memory
 * @jump: the jump to the replacement, made once at registration
 * @original: what stood there; valid while the update is applied
 */
struct kspliced_site {
	const struct kspliced_span *span;
	u8 jump[JMP32_INSN_SIZE];
	u8 original[JMP32_INSN_SIZE];
};

/**
 * struct kspliced_constant - a datum with what the core keeps of it
 * @datum: the datum, in the update module's memory
 * @original: what stood there; valid while the update is applied
 * @alias: where it can be written, during a switch; else NULL
 */
struct kspliced_constant {
	const struct kspliced_datum *datum;
	u8 *original;
	u8 *alias;
};

/**
 * struct kspliced_pins - the modules that must stay while an update is applied
 * @owner: the update module itself
 * @targets: the modules that own a span or a datum, each once
 * @nr_targets: number of entries in @targets
 */
struct kspliced_pins {
	struct module *owner;
	struct module **targets;
	unsigned int nr_targets;
};

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
 * struct kspliced_hold - a module that is not loaded, and whose load is to wait
 * @list: entry in the list of an update
 * @name: of the module
 * @required: its load fails where its part does not come; else it goes on
 * @seconds: how long it waits
 */
struct kspliced_hold {
	struct list_head list;
	char name[MODULE_NAME_LEN];
	bool required;
	unsigned int seconds;
};

/**
 * struct kspliced_held - a module whose load waits
 * @list: entry in the list of all of them
 * @mod: the module, in state MODULE_STATE_COMING
 * @required: as its hold said
 * @told: a listener has read its name
 * @woken: it is to go on
 */
struct kspliced_held {
	struct list_head list;
	const struct module *mod;
	bool required;
	bool told;
	bool woken;
};

struct kspliced_live;

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

/**
 * struct kspliced_live - a registered update
 * @kobj: its directory under /sys/kernel/kspliced/updates
 * @list: entry in the list of registered updates
 * @update: what the update module passed
 * @sites: one for each span whose target is still there, sorted by address
 * @nr_sites: number of entries in @sites
 * @constants: one for each datum whose target is still there, sorted by address
 * @nr_constants: number of entries in @constants
 * @originals: room for what stood in the constants
 * @pins: held while applied
 * @holds: modules whose loads wait while it is applied (struct kspliced_hold)
 * @stage: see docs/kernel-core.md
 * @cause: of the last attempt
 * @pause_ns: of the last successful switch
 * @report: the last attempt if it failed with something to show, else NULL
 * @resident: bytes of its module, from its first successful apply on; else 0
 * @leaving: being unregistered; takes no switch that would apply it
 *
 * Everything but @kobj and @update is protected by kspliced_lock.
 */
struct kspliced_live {
	struct kobject kobj;
	struct list_head list;
	const struct kspliced_update *update;
	struct kspliced_site *sites;
	u32 nr_sites;
	struct kspliced_constant *constants;
	u32 nr_constants;
	u8 *originals;
	struct kspliced_pins pins;
	struct list_head holds;
	enum kspliced_stage stage;
	enum kspliced_cause cause;
	u64 pause_ns;
	struct kspliced_attempt *report;
	u64 resident;
	bool leaving;
};

extern struct mutex kspliced_lock;	/* see state.c */
extern const struct kobj_type kspliced_ktype;

/* symbols.c */
int kspliced_find_symbols(void);
void kspliced_lock_probes(void);
void kspliced_unlock_probes(void);
void kspliced_lock_text(void);
void kspliced_unlock_text(void);
void kspliced_lock_entries(void);
void kspliced_unlock_entries(void);
bool kspliced_return_trampoline(unsigned long addr);
const char *kspliced_text_reserved(void *start, void *end);
bool kspliced_no_breakpoint(unsigned long addr);
bool kspliced_core_rodata(unsigned long addr);
bool kspliced_core_data(unsigned long addr);

/* owner.c */
struct module *kspliced_owner(unsigned long addr,
			      bool (*within)(unsigned long addr,
					     const struct module *mod));
struct module *kspliced_text_owner(unsigned long addr);
struct module *kspliced_data_owner(unsigned long addr);
bool kspliced_within_rodata(unsigned long addr, const struct module *mod);
bool kspliced_within_data(unsigned long addr, const struct module *mod);
bool kspliced_is_pointer(const struct kspliced_datum *datum);
u64 kspliced_module_size(const struct module *mod);

/* state.c */
struct kspliced_live *kspliced_applied(void);
void kspliced_set_applied(struct kspliced_live *live);
void kspliced_keep(struct kspliced_live *live);
void kspliced_lose(struct kspliced_live *live);
u64 kspliced_resident(void);
bool kspliced_pinned(const struct kspliced_pins *pins, const struct module *mod);

/* site.c */
int kspliced_make_sites(struct kspliced_live *live);
struct kspliced_site *kspliced_find_site(const struct kspliced_live *live,
					 unsigned long addr);
void kspliced_forget_sites(struct kspliced_live *live, const char *target);
const struct kspliced_span *kspliced_clash(const struct kspliced_live *in,
					   const struct kspliced_live *out);

/* validate.c */
int kspliced_validate(const struct kspliced_update *update);

/* hold.c */
typedef void (*kspliced_visit_held_fn)(const struct kspliced_held *held, void *data);
int kspliced_hold_init(void);
void kspliced_hold_exit(void);
int kspliced_hold(struct kspliced_live *live, const char *line);
int kspliced_hold_load(struct module *mod);
void kspliced_free_holds(struct kspliced_live *live);
void kspliced_review_holds(void);
void kspliced_for_held(kspliced_visit_held_fn visit, void *data);
bool kspliced_is_held(const struct module *mod);
const char *kspliced_arrived(const struct kspliced_live *live);

/* pin.c */
enum kspliced_cause kspliced_pin(struct kspliced_live *live);
void kspliced_unpin(struct kspliced_pins *pins);

/* attempt.c */
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

/* unlisted.c */
typedef void (*kspliced_visit_task_fn)(struct task_struct *task, void *data);
int kspliced_unlisted_init(void);
unsigned long kspliced_for_unlisted(unsigned long listed,
				    kspliced_visit_task_fn visit, void *data);

/* stack_check.c */
void kspliced_check_self(struct kspliced_attempt *attempt);
void kspliced_check_tasks(struct kspliced_attempt *attempt);

/* verify.c */
void kspliced_verify_jumps(struct kspliced_attempt *attempt);
void kspliced_verify_spans(struct kspliced_attempt *attempt);
void kspliced_keep_originals(struct kspliced_attempt *attempt);

/* poke.c */
int kspliced_poke_init(void);
void kspliced_poke_exit(void);
void kspliced_follow(struct kspliced_attempt *attempt);
void kspliced_change_text(struct kspliced_attempt *attempt);

/* switch.c */
void kspliced_forget(const struct module *mod);
int kspliced_apply(struct kspliced_live *live);
int kspliced_reverse(struct kspliced_live *live);
void kspliced_retire(struct kspliced_live *live);

/* redirect.c */
typedef void (*kspliced_visit_fn)(const struct kspliced_span *span, void *data);
unsigned int kspliced_for_redirected(const struct kspliced_live *live,
				     kspliced_visit_fn visit, void *data);

/* data.c */
int kspliced_make_constants(struct kspliced_live *live);
void kspliced_forget_constants(struct kspliced_live *live, const char *target);
bool kspliced_has_constant(const struct kspliced_live *live,
			   const struct kspliced_datum *datum);
int kspliced_map_data(struct kspliced_live *live);
void kspliced_unmap_data(struct kspliced_live *live);
void kspliced_verify_values(struct kspliced_attempt *attempt);
void kspliced_verify_data(struct kspliced_attempt *attempt);
void kspliced_restore_data(struct kspliced_live *live);
void kspliced_write_data(struct kspliced_live *live);

/* sysfs.c */
int kspliced_sysfs_init(void);
void kspliced_sysfs_exit(void);
int kspliced_sysfs_add(struct kspliced_live *live);

static inline unsigned long kspliced_jump_addr(const struct kspliced_span *span)
{
	return span->addr + span->jump_offset;
}

#endif /* KSPLICED_H */

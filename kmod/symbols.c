// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Functions of the kernel that it does not export to modules. They are found
 * when the core loads, and it does not load where one is missing.
 *
 * They are called through static calls: a direct call needs neither a
 * retpoline nor the endbr64 that the kernel takes away from functions whose
 * address it never takes (CONFIG_X86_KERNEL_IBT). The prototypes are the
 * kernel's own, so a signature that changed does not compile.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jump_label.h>
#include <linux/memory.h>
#include <linux/sched/task.h>
#include <asm/alternative.h>

#include "symbols.h"

#ifndef CONFIG_SMP
#error "the core needs CONFIG_SMP"
#endif

DEFINE_STATIC_CALL_NULL(kspliced_text_poke, text_poke_kgdb);
DEFINE_STATIC_CALL_NULL(kspliced_stack_trace, stack_trace_save_tsk_reliable);
DEFINE_STATIC_CALL_NULL(kspliced_stop_machine, stop_machine_cpuslocked);
DEFINE_STATIC_CALL_NULL(kspliced_idle_task, idle_task);
DEFINE_STATIC_CALL_NULL(kspliced_core_kernel_text, core_kernel_text);
DEFINE_STATIC_CALL_NULL(kspliced_module_address, __module_address);
DEFINE_STATIC_CALL_NULL(kspliced_find_module, find_module);
DEFINE_STATIC_CALL_NULL(kspliced_symbol_size, kallsyms_lookup_size_offset);
DEFINE_STATIC_CALL_NULL(kspliced_get_kprobe, get_kprobe);
DEFINE_STATIC_CALL_NULL(kspliced_wake_up_state, wake_up_state);
DEFINE_STATIC_CALL_NULL(kspliced_ftrace_start, ftrace_rec_iter_start);
DEFINE_STATIC_CALL_NULL(kspliced_ftrace_next, ftrace_rec_iter_next);
DEFINE_STATIC_CALL_NULL(kspliced_ftrace_record, ftrace_rec_iter_record);
#ifdef KSPLICED_EXIT_LISTS
DEFINE_STATIC_CALL_NULL(kspliced_exit_start, exit_tasks_rcu_start);
DEFINE_STATIC_CALL_NULL(kspliced_exit_finish, exit_tasks_rcu_finish);
#endif
DEFINE_STATIC_CALL_NULL(kspliced_blacklisted, within_kprobe_blacklist);
DEFINE_STATIC_CALL_NULL(kspliced_jump_label_lock, jump_label_lock);
DEFINE_STATIC_CALL_NULL(kspliced_jump_label_unlock, jump_label_unlock);
DEFINE_STATIC_CALL_NULL(kspliced_jump_label_reserved, jump_label_text_reserved);
DEFINE_STATIC_CALL_NULL(kspliced_static_call_reserved, static_call_text_reserved);
#ifdef KSPLICED_HAVE_LOCK_PREFIXES
DEFINE_STATIC_CALL_NULL(kspliced_alternatives_reserved, alternatives_text_reserved);
#endif
DEFINE_STATIC_CALL_NULL(kspliced_ftrace_reserved, ftrace_text_reserved);
DEFINE_STATIC_CALL_NULL(kspliced_lookup_name, kallsyms_lookup_name);

#ifdef KSPLICED_EXIT_LISTS
unsigned long kspliced_rcu_tasks;
#endif
#ifdef KSPLICED_EXIT_SRCU
const struct srcu_struct *kspliced_exit_srcu;
#endif

static struct mutex *kprobe_mutex_found, *text_mutex_found, *ftrace_lock_found;
static unsigned long rodata_start, rodata_end, data_start, data_end;
static unsigned long ro_after_init_start, ro_after_init_end;

/* Where a return address lies that a tracer hid: rethook's and fgraph's. */
static const char * const trampoline_names[] = {
	"arch_rethook_trampoline",
	"__kretprobe_trampoline",
	"return_to_handler",
};

static struct {
	unsigned long addr;
	unsigned long size;
} trampolines[ARRAY_SIZE(trampoline_names)];

/*
 * kallsyms_lookup_name itself is not exported; a kprobe knows its address. It is
 * not armed: disarming takes memory, and a probe that cannot be disarmed stays
 * registered, here on a stack.
 */
static void *find_lookup_name(void)
{
	struct kprobe probe = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	unsigned long addr;
	int error;

	error = register_kprobe(&probe);
	if (error) {
		pr_err("cannot load: no kprobe on kallsyms_lookup_name (error %d); the kernel needs CONFIG_KPROBES and CONFIG_KALLSYMS\n",
		       error);
		return NULL;
	}
	addr = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return (void *)addr;
}

static void *find(const char *name)
{
	void *addr = (void *)static_call(kspliced_lookup_name)(name);

	if (!addr)
		pr_err("cannot load: this kernel has no %s%s\n", name,
		       IS_ENABLED(CONFIG_KALLSYMS_ALL) ? "" :
		       "; the core needs CONFIG_KALLSYMS_ALL");
	return addr;
}

#define FIND_CALL(call, function)					\
({									\
	typeof(function) *found__ = find(#function);			\
									\
	if (found__)							\
		static_call_update(call, found__);			\
	!!found__;							\
})

/* A kernel without the tracer has no trampoline of it: none to miss. */
static int find_trampolines(void)
{
	unsigned long addr, offset;
	int i;

	for (i = 0; i < ARRAY_SIZE(trampolines); i++) {
		addr = static_call(kspliced_lookup_name)(trampoline_names[i]);
		trampolines[i].addr = addr;
		if (!addr || static_call(kspliced_symbol_size)(addr, &trampolines[i].size,
							       &offset))
			continue;
		pr_err("cannot load: no size of %s\n", trampoline_names[i]);
		return -ENOENT;
	}
	return 0;
}

/* What the kernel has for RCU-tasks to know of threads that end. */
static int find_exit_account(void)
{
#ifdef KSPLICED_EXIT_LISTS
	kspliced_rcu_tasks = (unsigned long)find("rcu_tasks__percpu");
	if (!kspliced_rcu_tasks ||
	    !FIND_CALL(kspliced_exit_start, exit_tasks_rcu_start) ||
	    !FIND_CALL(kspliced_exit_finish, exit_tasks_rcu_finish))
		return -ENOENT;
#endif
#ifdef KSPLICED_EXIT_SRCU
	kspliced_exit_srcu = find("tasks_rcu_exit_srcu");
	if (!kspliced_exit_srcu)
		return -ENOENT;
#endif
	return 0;
}

/**
 * kspliced_find_symbols() - find every unexported symbol that the core calls
 *
 * Return: 0, or -ENOENT after a message that names the one that is missing.
 */
int kspliced_find_symbols(void)
{
	typeof(kallsyms_lookup_name) *lookup = find_lookup_name();

	if (!lookup)
		return -ENOENT;
	static_call_update(kspliced_lookup_name, lookup);

	kprobe_mutex_found = find("kprobe_mutex");
	text_mutex_found = find("text_mutex");
	ftrace_lock_found = find("ftrace_lock");
	rodata_start = (unsigned long)find("__start_rodata");
	rodata_end = (unsigned long)find("__end_rodata");
	ro_after_init_start = (unsigned long)find("__start_ro_after_init");
	ro_after_init_end = (unsigned long)find("__end_ro_after_init");
	data_start = (unsigned long)find("_sdata");
	data_end = (unsigned long)find("_edata");
	if (!kprobe_mutex_found || !text_mutex_found || !ftrace_lock_found ||
	    !rodata_start || !rodata_end || !ro_after_init_start ||
	    !ro_after_init_end || !data_start || !data_end ||
	    !FIND_CALL(kspliced_text_poke, text_poke_kgdb) ||
	    !FIND_CALL(kspliced_stack_trace, stack_trace_save_tsk_reliable) ||
	    !FIND_CALL(kspliced_stop_machine, stop_machine_cpuslocked) ||
	    !FIND_CALL(kspliced_idle_task, idle_task) ||
	    !FIND_CALL(kspliced_core_kernel_text, core_kernel_text) ||
	    !FIND_CALL(kspliced_module_address, __module_address) ||
	    !FIND_CALL(kspliced_find_module, find_module) ||
	    !FIND_CALL(kspliced_symbol_size, kallsyms_lookup_size_offset) ||
	    !FIND_CALL(kspliced_get_kprobe, get_kprobe) ||
	    !FIND_CALL(kspliced_wake_up_state, wake_up_state) ||
	    !FIND_CALL(kspliced_ftrace_start, ftrace_rec_iter_start) ||
	    !FIND_CALL(kspliced_ftrace_next, ftrace_rec_iter_next) ||
	    !FIND_CALL(kspliced_ftrace_record, ftrace_rec_iter_record) ||
	    !FIND_CALL(kspliced_blacklisted, within_kprobe_blacklist) ||
	    !FIND_CALL(kspliced_jump_label_lock, jump_label_lock) ||
	    !FIND_CALL(kspliced_jump_label_unlock, jump_label_unlock) ||
	    !FIND_CALL(kspliced_jump_label_reserved, jump_label_text_reserved) ||
	    !FIND_CALL(kspliced_static_call_reserved, static_call_text_reserved) ||
#ifdef KSPLICED_HAVE_LOCK_PREFIXES
	    !FIND_CALL(kspliced_alternatives_reserved, alternatives_text_reserved) ||
#endif
	    !FIND_CALL(kspliced_ftrace_reserved, ftrace_text_reserved))
		return -ENOENT;

	return find_exit_account() ?: find_trampolines();
}

/**
 * kspliced_lock_probes() - keep everybody else from registering and arming kprobes
 *
 * register_kprobe() copies the instruction under text_mutex and arms the probe
 * later, under that again: only this lock is held all the time between.
 */
void kspliced_lock_probes(void)
{
	mutex_lock(kprobe_mutex_found);
}

/**
 * kspliced_unlock_probes() - let others register and arm kprobes again
 */
void kspliced_unlock_probes(void)
{
	mutex_unlock(kprobe_mutex_found);
}

/**
 * kspliced_lock_text() - keep everybody else from changing the kernel's text
 */
void kspliced_lock_text(void)
{
	mutex_lock(text_mutex_found);
}

/**
 * kspliced_unlock_text() - let others change the kernel's text again
 */
void kspliced_unlock_text(void)
{
	mutex_unlock(text_mutex_found);
}

/**
 * kspliced_lock_entries() - keep everybody else from redirecting functions
 */
void kspliced_lock_entries(void)
{
	mutex_lock(ftrace_lock_found);
}

/**
 * kspliced_unlock_entries() - let others redirect functions again
 */
void kspliced_unlock_entries(void)
{
	mutex_unlock(ftrace_lock_found);
}

/**
 * kspliced_return_trampoline() - does an address lie where a tracer hides another?
 * @addr: a return address, or a word of a stack
 *
 * The trampoline's start stands in place of a return address; one inside it is
 * on the stack of a thread that the trampoline has asked where to return to.
 * There the unwinder of 6.1 takes the stack for ended, and vouches for it.
 *
 * Return: true if it does.
 */
bool kspliced_return_trampoline(unsigned long addr)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(trampolines); i++)
		if (addr - trampolines[i].addr < trampolines[i].size)
			return true;
	return false;
}

/**
 * kspliced_text_reserved() - may somebody else change the text where a jump goes?
 * @start: the jump's first byte
 * @end: its last byte
 *
 * The kernel's own tables are asked, as kprobes does
 * (check_kprobe_address_safe()). May sleep.
 *
 * Return: what is wrong with the place, or NULL.
 */
const char *kspliced_text_reserved(void *start, void *end)
{
	const char *why = NULL;

	static_call(kspliced_jump_label_lock)();
	mutex_lock(text_mutex_found);
	if (static_call(kspliced_jump_label_reserved)(start, end))
		why = "the jump overlaps a jump label";
	else if (static_call(kspliced_static_call_reserved)(start, end))
		why = "the jump overlaps a static call";
#ifdef KSPLICED_HAVE_LOCK_PREFIXES
	else if (static_call(kspliced_alternatives_reserved)(start, end))
		why = "the jump overlaps a lock prefix";
#endif
	else if (static_call(kspliced_ftrace_reserved)(start, end))
		why = "the jump overlaps the slot of the function tracer";
	mutex_unlock(text_mutex_found);
	static_call(kspliced_jump_label_unlock)();
	return why;
}

/**
 * kspliced_no_breakpoint() - does the kernel keep breakpoints off an address?
 * @addr: any value
 *
 * May sleep.
 *
 * Return: true if handling a breakpoint there might run into it again.
 */
bool kspliced_no_breakpoint(unsigned long addr)
{
	bool listed;

	mutex_lock(kprobe_mutex_found);	/* a module may take its part of the list away */
	listed = static_call(kspliced_blacklisted)(addr);
	mutex_unlock(kprobe_mutex_found);
	return listed;
}

/**
 * kspliced_core_rodata() - does an address lie in vmlinux's read-only data?
 * @addr: any value
 *
 * What is read-only only after init lies among it, and does not count: start-up
 * has written to it.
 *
 * Return: true if it does.
 */
bool kspliced_core_rodata(unsigned long addr)
{
	return addr >= rodata_start && addr < rodata_end &&
	       !(addr >= ro_after_init_start && addr < ro_after_init_end);
}

/**
 * kspliced_core_data() - does an address lie in vmlinux's data?
 * @addr: any value
 *
 * Read-only data or such as have an initial value.
 *
 * Return: true if it does.
 */
bool kspliced_core_data(unsigned long addr)
{
	return (addr >= rodata_start && addr < rodata_end) ||
	       (addr >= data_start && addr < data_end);
}

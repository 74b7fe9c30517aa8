/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel does not export: symbols.c */
#ifndef KSPLICED_SYMBOLS_H
#define KSPLICED_SYMBOLS_H

#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/srcu.h>
#include <linux/stacktrace.h>
#include <linux/static_call.h>
#include <linux/stop_machine.h>
#include <asm/text-patching.h>

/* How the kernel keeps account of threads that end (unlisted.c, Kbuild). */
#if defined(CONFIG_TASKS_RCU) && defined(CONFIG_VMAP_STACK) &&	\
	defined(KSPLICED_HAVE_EXIT_LIST)
#define KSPLICED_EXIT_LISTS
#elif defined(CONFIG_TASKS_RCU) && defined(KSPLICED_HAVE_EXIT_SRCU)
#define KSPLICED_EXIT_SRCU
#endif

/* Unexported functions, called directly: these work on a sealed endbr too. */
DECLARE_STATIC_CALL(kspliced_text_poke, text_poke_kgdb);
DECLARE_STATIC_CALL(kspliced_stack_trace, stack_trace_save_tsk_reliable);
DECLARE_STATIC_CALL(kspliced_stop_machine, stop_machine_cpuslocked);
DECLARE_STATIC_CALL(kspliced_idle_task, idle_task);
DECLARE_STATIC_CALL(kspliced_core_kernel_text, core_kernel_text);
DECLARE_STATIC_CALL(kspliced_module_address, __module_address);
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

#endif /* KSPLICED_SYMBOLS_H */

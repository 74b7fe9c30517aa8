// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From one text to the other, so that a non-maskable interrupt sees no half of
 * a jump. Those come while the machine is stopped, too, and may run what is being
 * replaced. As text_poke_bp() of the kernel does: first a breakpoint on each
 * site, then the bytes behind it, then the first byte; between them every CPU
 * serialises, outside of interrupts. Who runs into the breakpoint goes to the
 * replacement.
 *
 * Under stop_machine(), with text_mutex held by the thread that stopped the
 * machine. That is not the one that writes, so it takes the variant of
 * text_poke() for a stopped machine, which does not insist on holding the lock
 * itself.
 */
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/ptrace.h>
#include <linux/string.h>
#include <asm/processor.h>
#include <asm/sync_core.h>

#include "attempt.h"
#include "poke.h"
#include "site.h"
#include "state.h"
#include "symbols.h"

/* The attempt that is at work; one at a time (switch_lock). */
static struct kspliced_attempt *changing;

static struct kspliced_site *jump_at(const struct kspliced_live *live,
				     unsigned long addr)
{
	struct kspliced_site *site = live ? kspliced_find_site(live, addr) : NULL;

	if (!site || !site->span->new_addr ||
	    kspliced_jump_addr(site->span) != addr)
		return NULL;
	return site;
}

NOKPROBE_SYMBOL(jump_at);

/*
 * A breakpoint of ours leads to the replacement, the new one if there are two.
 * One that is gone already is no reason to die: what stands there now is run, as
 * kprobe_int3_handler() long had it. Emulators show an old one now and then.
 */
static int divert(struct notifier_block *self, unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;
	/* Pairs with the releases in kspliced_change_text(). */
	struct kspliced_attempt *attempt = smp_load_acquire(&changing);
	unsigned long addr = regs->ip - INT3_INSN_SIZE;
	struct kspliced_site *site = NULL;

	if (event != DIE_INT3 || user_mode(regs))
		return NOTIFY_DONE;
	if (attempt)
		site = jump_at(attempt->in, addr) ?: jump_at(attempt->out, addr);
	if (site)
		regs->ip = site->span->new_addr;
	else if (READ_ONCE(*(u8 *)addr) != INT3_INSN_OPCODE)
		regs->ip = addr;
	else
		return NOTIFY_DONE;
	return NOTIFY_STOP;
}

NOKPROBE_SYMBOL(divert);

static struct notifier_block breakpoints = {
	.notifier_call = divert,
};

int kspliced_poke_init(void)
{
	return register_die_notifier(&breakpoints);
}

void kspliced_poke_exit(void)
{
	unregister_die_notifier(&breakpoints);
}

/**
 * kspliced_follow() - wait on a held CPU until another has changed the text
 * @attempt: the attempt at hand
 *
 * Serialises and says so whenever it is asked to. Where this answers no
 * interrupt is being handled on this CPU, and those that come later see what was
 * written before.
 */
void kspliced_follow(struct kspliced_attempt *attempt)
{
	int seen = 0, asked;

	/* Pairs with the releases of the CPU that writes. */
	while (!smp_load_acquire(&attempt->done)) {
		/* Pairs with the release in step(). */
		asked = smp_load_acquire(&attempt->step);
		if (asked != seen) {
			seen = asked;
			sync_core();
			atomic_inc(&attempt->followed);
		}
		cpu_relax();
	}
}

/* Returns when every other CPU has serialised, outside of interrupts. */
static void step(struct kspliced_attempt *attempt)
{
	atomic_set(&attempt->followed, 1);
	/* What was written comes first for those who follow. */
	smp_store_release(&attempt->step, attempt->step + 1);
	sync_core();
	while (atomic_read(&attempt->followed) != attempt->nr_cpus)
		cpu_relax();
}

static void poke(const struct kspliced_site *site, u32 offset, const u8 *bytes,
		 u32 size)
{
	void *addr = (void *)kspliced_jump_addr(site->span) + offset;

	static_call(kspliced_text_poke)(addr, bytes + offset, size);
}

/*
 * Write @size bytes at @offset of every site: the original ones where @live
 * leaves, but not where the jump of another comes to the same place.
 */
static void poke_sites(const struct kspliced_live *live,
		       const struct kspliced_live *coming, u32 offset, u32 size)
{
	const struct kspliced_site *site;
	u32 i;

	for (i = 0; live && i < live->nr_sites; i++) {
		site = &live->sites[i];
		if (!site->span->new_addr)
			continue;
		if (live == coming)
			poke(site, offset, site->jump, size);
		else if (!jump_at(coming, kspliced_jump_addr(site->span)))
			poke(site, offset, site->original, size);
	}
}

static void poke_breakpoints(const struct kspliced_live *live)
{
	static const u8 breakpoint = INT3_INSN_OPCODE;
	u32 i;

	for (i = 0; live && i < live->nr_sites; i++)
		if (live->sites[i].span->new_addr)
			poke(&live->sites[i], 0, &breakpoint, sizeof(breakpoint));
}

/**
 * kspliced_change_text() - take the jumps of one update out, put another's in
 * @attempt: the attempt at hand, its text verified and kept
 *
 * On one CPU of a stopped machine, with all others in kspliced_follow().
 */
void kspliced_change_text(struct kspliced_attempt *attempt)
{
	const struct kspliced_live *in = attempt->in, *out = attempt->out;
	const u32 rest = JMP32_INSN_SIZE - 1;

	/* The sites are known before anybody can run into one. */
	smp_store_release(&changing, attempt);

	poke_breakpoints(out);
	poke_breakpoints(in);
	/* Whoever was between the first byte and the last has left. */
	step(attempt);
	poke_sites(out, in, 1, rest);
	poke_sites(in, in, 1, rest);
	step(attempt);
	poke_sites(out, in, 0, 1);
	poke_sites(in, in, 0, 1);
	/* Whoever came across a breakpoint has found its way. */
	step(attempt);

	/* Nobody asks for the sites any more. */
	smp_store_release(&changing, NULL);
}

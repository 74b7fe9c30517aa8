// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The spans of an update, sorted by address, each with its jump.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "range.h"
#include "site.h"
#include "state.h"

/**
 * kspliced_find_site() - the site of an update whose span holds an address
 * @live: a registered update
 * @addr: any value
 *
 * Return: the site, or NULL.
 */
struct kspliced_site *kspliced_find_site(const struct kspliced_live *live,
					 unsigned long addr)
{
	return kspliced_find_range(live->sites, live->nr_sites,
				   sizeof(*live->sites), addr);
}

NOKPROBE_SYMBOL(kspliced_find_site);	/* a breakpoint asks, poke.c */

/* The site of an update whose jump holds @addr, or NULL. */
static const struct kspliced_site *find_jump(const struct kspliced_live *live,
					     unsigned long addr)
{
	const struct kspliced_site *site = kspliced_find_site(live, addr);

	if (!site || !site->span->new_addr ||
	    addr - kspliced_jump_addr(site->span) >= JMP32_INSN_SIZE)
		return NULL;
	return site;
}

/**
 * kspliced_clash() - do jumps of two updates overlap without being in one place?
 * @in: the update that is to be applied
 * @out: the one that is to leave
 *
 * Putting the original bytes of the one back would then break the other.
 *
 * Return: the first span of @in for which it is so, or NULL.
 */
const struct kspliced_span *kspliced_clash(const struct kspliced_live *in,
					   const struct kspliced_live *out)
{
	const struct kspliced_site *first, *last;
	const struct kspliced_span *span;
	unsigned long addr;
	u32 i;

	for (i = 0; i < in->nr_sites; i++) {
		span = in->sites[i].span;
		if (!span->new_addr)
			continue;
		addr = kspliced_jump_addr(span);
		first = find_jump(out, addr);
		last = find_jump(out, addr + JMP32_INSN_SIZE - 1);
		if ((first && kspliced_jump_addr(first->span) != addr) ||
		    (last && kspliced_jump_addr(last->span) != addr))
			return span;
	}
	return NULL;
}

/**
 * kspliced_forget_sites() - forget the sites in a module that goes
 * @live: a registered update
 * @target: the name of the module
 *
 * Context: under kspliced_lock.
 */
void kspliced_forget_sites(struct kspliced_live *live, const char *target)
{
	u32 from, to = 0;

	for (from = 0; from < live->nr_sites; from++)
		if (strcmp(live->sites[from].span->target, target))
			live->sites[to++] = live->sites[from];
	live->nr_sites = to;
}

/* The span of @site has a replacement within reach of a 32-bit displacement. */
static void make_jump(struct kspliced_site *site)
{
	unsigned long next = kspliced_jump_addr(site->span) + JMP32_INSN_SIZE;
	s32 displacement = site->span->new_addr - next;

	site->jump[0] = JMP32_INSN_OPCODE;
	memcpy(site->jump + 1, &displacement, sizeof(displacement));
}

/**
 * kspliced_make_sites() - sort the spans by address and make their jumps
 * @live: an update that is about to be registered
 *
 * Return: 0, -ENOMEM, or -EINVAL after a message.
 */
int kspliced_make_sites(struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	const struct kspliced_span *span, *next;
	u32 i;

	if (!update->nr_spans)
		return 0;
	live->sites = kvcalloc(update->nr_spans, sizeof(*live->sites), GFP_KERNEL);
	if (!live->sites)
		return -ENOMEM;
	live->nr_sites = update->nr_spans;
	for (i = 0; i < update->nr_spans; i++) {
		span = &update->spans[i];
		live->sites[i].range.addr = span->addr;
		live->sites[i].range.size = span->size;
		live->sites[i].span = span;
		make_jump(&live->sites[i]);
	}
	kspliced_sort_ranges(live->sites, update->nr_spans, sizeof(*live->sites));
	for (i = 0; i + 1 < update->nr_spans; i++) {
		span = live->sites[i].span;
		next = live->sites[i + 1].span;
		if (span->addr + span->size <= next->addr)
			continue;
		pr_err("update %s refused: spans %s and %s overlap\n",
		       update->owner->name, span->name, next->name);
		return -EINVAL;
	}
	return 0;
}

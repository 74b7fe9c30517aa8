// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Does something else decide where a function goes? An ftrace callback that may
 * change the instruction pointer (FTRACE_OPS_FL_IPMODIFY) runs at the entry, before
 * our jump: the kernel's own live patches are such, and code that is redirected
 * there never meets its replacement.
 */

#include "redirect.h"
#include "site.h"
#include "state.h"
#include "symbols.h"

#ifndef CONFIG_DYNAMIC_FTRACE
#error "the core needs CONFIG_DYNAMIC_FTRACE"
#endif

/* The span of an update whose jump is behind this entry, or NULL. */
static const struct kspliced_span *redirected_span(const struct kspliced_live *live,
						   const struct dyn_ftrace *entry)
{
	const struct kspliced_site *site;

	if (!(entry->flags & FTRACE_FL_IPMODIFY))
		return NULL;
	site = kspliced_find_site(live, entry->ip);
	if (!site || !site->span->new_addr ||
	    entry->ip >= kspliced_jump_addr(site->span))
		return NULL;
	return site->span;
}

/**
 * kspliced_for_redirected() - visit the functions of an update that are redirected
 * @live: a registered update
 * @visit: called with each of them, or NULL
 * @data: passed to @visit
 *
 * Context: kspliced_lock_entries() keeps the answer true.
 * Return: how many they are.
 */
unsigned int kspliced_for_redirected(const struct kspliced_live *live,
				     kspliced_visit_fn visit, void *data)
{
	const struct kspliced_span *span;
	struct ftrace_rec_iter *iter;
	unsigned int count = 0;

	for (iter = static_call(kspliced_ftrace_start)(); iter;
	     iter = static_call(kspliced_ftrace_next)(iter)) {
		span = redirected_span(live, static_call(kspliced_ftrace_record)(iter));
		if (!span)
			continue;
		count++;
		if (visit)
			visit(span, data);
	}
	return count;
}

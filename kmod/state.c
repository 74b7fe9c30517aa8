// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which update is applied, and what it keeps in place.
 */
#include "kspliced.h"

/* Protects the list of updates and what kspliced.h says of struct kspliced_live. */
DEFINE_MUTEX(kspliced_lock);

static struct kspliced_live *applied;	/* protected by kspliced_lock */

/**
 * kspliced_applied() - the update that is applied
 *
 * Context: under kspliced_lock.
 * Return: the update, or NULL.
 */
struct kspliced_live *kspliced_applied(void)
{
	return applied;
}

/**
 * kspliced_pinned() - is a module among the targets that an update pins?
 * @pins: of the update
 * @mod: any module
 *
 * Return: true if it is.
 */
bool kspliced_pinned(const struct kspliced_pins *pins, const struct module *mod)
{
	unsigned int i;

	for (i = 0; i < pins->nr_targets; i++)
		if (pins->targets[i] == mod)
			return true;
	return false;
}

/**
 * kspliced_set_applied() - say which update is applied
 * @live: the update, or NULL
 *
 * Context: under kspliced_lock.
 */
void kspliced_set_applied(struct kspliced_live *live)
{
	applied = live;
}

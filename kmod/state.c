// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which update is applied, what it keeps in place, and what stays after it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "owner.h"
#include "state.h"

/* Protects the list of updates and what state.h says of struct kspliced_live. */
DEFINE_MUTEX(kspliced_lock);

/* Protected by kspliced_lock. */
static struct kspliced_live *applied;
static u64 resident;

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
 * kspliced_keep() - keep the module of an update in memory until the reboot
 * @live: an update that has just been applied for the first time
 *
 * The kernel may hold pointers to what its code has handed over, a string or a
 * table, for ever after. Nobody gives this reference back.
 *
 * Context: under kspliced_lock, its module pinned.
 */
void kspliced_keep(struct kspliced_live *live)
{
	if (live->resident)
		return;
	__module_get(live->update->owner);
	live->resident = kspliced_module_size(live->update->owner);
	resident += live->resident;
}

/**
 * kspliced_lose() - a module that was to stay is unloaded by force
 * @live: a registered update, about to be unregistered
 *
 * Context: under kspliced_lock.
 */
void kspliced_lose(struct kspliced_live *live)
{
	if (live->resident)
		pr_warn("update %s is unloaded by force; the kernel may still point into its memory\n",
			live->update->owner->name);
	resident -= live->resident;
	live->resident = 0;
}

/**
 * kspliced_resident() - how much memory stays until the reboot
 *
 * Context: under kspliced_lock.
 * Return: bytes of all modules of updates that were once applied.
 */
u64 kspliced_resident(void)
{
	return resident;
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

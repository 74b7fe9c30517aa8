// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kspliced kernel core: it verifies, switches, reverts and reports. This
 * part loads it, and takes and releases the updates that modules register.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bsearch.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "kspliced.h"

/* Protects the list and what kspliced.h says of struct kspliced_live. */
DEFINE_MUTEX(kspliced_lock);
static LIST_HEAD(updates);

static int compare_sites(const void *one, const void *other)
{
	unsigned long a = ((const struct kspliced_site *)one)->span->addr;
	unsigned long b = ((const struct kspliced_site *)other)->span->addr;

	return a < b ? -1 : a > b;
}

static int compare_address(const void *key, const void *element)
{
	const struct kspliced_span *span =
		((const struct kspliced_site *)element)->span;
	unsigned long addr = (unsigned long)key;

	if (addr < span->addr)
		return -1;
	return addr - span->addr >= span->size;
}

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
	return bsearch((const void *)addr, live->sites, live->nr_sites,
		       sizeof(*live->sites), compare_address);
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

/* Sort the spans by address and make their jumps. */
static int make_sites(struct kspliced_live *live)
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
		live->sites[i].span = &update->spans[i];
		kspliced_make_jump(&live->sites[i]);
	}
	sort(live->sites, update->nr_spans, sizeof(*live->sites), compare_sites,
	     NULL);
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

static struct kspliced_live *find_live(const struct kspliced_update *update)
{
	struct kspliced_live *live;

	list_for_each_entry(live, &updates, list)
		if (live->update == update)
			return live;
	return NULL;
}

/**
 * kspliced_register_update() - take an update; its module's init calls this
 * @update: stays valid until it is unregistered
 *
 * The update is in stage "preparing" then and has its directory in sysfs.
 * Nothing in the kernel changes.
 *
 * Return: 0, -EINVAL after one message that says what is wrong with it,
 * -EEXIST, or -ENOMEM.
 */
int kspliced_register_update(const struct kspliced_update *update)
{
	struct kspliced_live *live;
	int error;

	error = kspliced_validate(update);
	if (error)
		return error;
	live = kzalloc(sizeof(*live), GFP_KERNEL);
	if (!live)
		return -ENOMEM;
	live->update = update;
	INIT_LIST_HEAD(&live->list);
	INIT_LIST_HEAD(&live->holds);
	kobject_init(&live->kobj, &kspliced_ktype);

	error = make_sites(live) ?: kspliced_make_constants(live);
	if (error)
		goto put;
	mutex_lock(&kspliced_lock);
	if (find_live(update))
		error = -EEXIST;
	else
		list_add(&live->list, &updates);
	mutex_unlock(&kspliced_lock);
	if (error)
		goto put;
	error = kspliced_sysfs_add(live);
	if (!error)
		return 0;

	mutex_lock(&kspliced_lock);
	list_del(&live->list);
	mutex_unlock(&kspliced_lock);
put:
	kobject_put(&live->kobj);
	return error;
}
EXPORT_SYMBOL_GPL(kspliced_register_update);

/**
 * kspliced_unregister_update() - release an update; its module's exit calls this
 * @update: what was registered
 *
 * Returns when no switch and no reader of its files uses it any more.
 */
void kspliced_unregister_update(const struct kspliced_update *update)
{
	struct kspliced_live *live;

	mutex_lock(&kspliced_lock);
	live = find_live(update);
	mutex_unlock(&kspliced_lock);
	if (WARN_ON_ONCE(!live))
		return;

	kspliced_retire(live);
	/*
	 * This waits for those who are writing to control and would wait for
	 * the lock, so it cannot be held here.
	 */
	kobject_del(&live->kobj);
	mutex_lock(&kspliced_lock);
	list_del(&live->list);
	mutex_unlock(&kspliced_lock);
	kobject_put(&live->kobj);
}
EXPORT_SYMBOL_GPL(kspliced_unregister_update);

static int __init kspliced_init(void)
{
	int error;

	error = kspliced_find_symbols() ?: kspliced_transition_init();
	if (error)
		return error;
	error = kspliced_sysfs_init();
	if (error)
		goto transition;
	error = kspliced_hold_init();
	if (!error)
		return 0;
	kspliced_sysfs_exit();
transition:
	kspliced_transition_exit();
	return error;
}

static void __exit kspliced_exit(void)
{
	kspliced_hold_exit();
	kspliced_sysfs_exit();
	kspliced_transition_exit();
}

module_init(kspliced_init);
module_exit(kspliced_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The kspliced authors");
MODULE_DESCRIPTION("Switches running kernel code to its replacement");
MODULE_VERSION(KSPLICED_VERSION);

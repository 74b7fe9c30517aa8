// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kspliced kernel core: it verifies, switches, reverts and reports. This
 * part loads it, and takes and releases the updates that modules register.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/slab.h>

#include "data.h"
#include "hold.h"
#include "poke.h"
#include "site.h"
#include "state.h"
#include "switch.h"
#include "symbols.h"
#include "sysfs.h"
#include "unlisted.h"
#include "validate.h"

static LIST_HEAD(updates);

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

	error = kspliced_make_sites(live) ?: kspliced_make_constants(live);
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

/*
 * The notifier is the last of its chain at MODULE_STATE_COMING: relocations,
 * alternatives, ftrace, jump labels, static calls and live patches are done with
 * the module's text by then, and none of its code has run, as parameters are
 * parsed later (kernel/module/main.c, load_module()).
 */
static int notify(struct notifier_block *block, unsigned long state, void *data)
{
	int error;

	if (state == MODULE_STATE_COMING) {
		error = kspliced_hold_load(data);
		/* Who makes a load fail is not told that the module goes. */
		if (error)
			kspliced_forget(data);
		return notifier_from_errno(error);
	}
	if (state == MODULE_STATE_GOING)
		kspliced_forget(data);
	return NOTIFY_DONE;
}

static struct notifier_block notifier = {
	.notifier_call = notify,
	.priority = INT_MIN,
};

static int __init kspliced_init(void)
{
	int error;

	error = kspliced_find_symbols() ?: kspliced_unlisted_init() ?:
		kspliced_poke_init();
	if (error)
		return error;
	error = kspliced_sysfs_init();
	if (error)
		goto poke;
	error = kspliced_hold_init();
	if (error)
		goto sysfs;
	error = register_module_notifier(&notifier);
	if (!error)
		return 0;
	kspliced_hold_exit();
sysfs:
	kspliced_sysfs_exit();
poke:
	kspliced_poke_exit();
	return error;
}

static void __exit kspliced_exit(void)
{
	unregister_module_notifier(&notifier);
	kspliced_hold_exit();
	kspliced_sysfs_exit();
	kspliced_poke_exit();
}

module_init(kspliced_init);
module_exit(kspliced_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The kspliced authors");
MODULE_DESCRIPTION("Switches running kernel code to its replacement");
MODULE_VERSION(KSPLICED_VERSION);

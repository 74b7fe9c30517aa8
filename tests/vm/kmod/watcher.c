// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module that wants to hear of modules: it waits for all that come at the moment,
 * and whoever comes after it waits behind it.
 */
#include <linux/module.h>
#include <linux/notifier.h>

static int heard(struct notifier_block *block, unsigned long state, void *data)
{
	return NOTIFY_DONE;
}

static struct notifier_block watcher = { .notifier_call = heard };

static int __init watcher_init(void)
{
	return register_module_notifier(&watcher);
}

static void __exit watcher_exit(void)
{
	unregister_module_notifier(&watcher);
}

module_init(watcher_init);
module_exit(watcher_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A module that wants to hear of modules");

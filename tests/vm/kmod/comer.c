// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module that comes late. /proc/comer shows what comer_value() gave when the
 * parameter "ask" was parsed, when init began, and gives now: 1000 in the original.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int parsed, began;

static bool fail;
module_param(fail, bool, 0);
MODULE_PARM_DESC(fail, "whether init is to fail");

static noinline int comer_value(int number)
{
	return 1000 + number;
}

static int ask_set(const char *value, const struct kernel_param *param)
{
	parsed = comer_value(0);
	return 0;
}

static const struct kernel_param_ops ask_ops = { .set = ask_set };
module_param_cb(ask, &ask_ops, NULL, 0);
MODULE_PARM_DESC(ask, "any value");

static int show(struct seq_file *file, void *unused)
{
	seq_printf(file, "%d %d %d\n", parsed, began, comer_value(file->index));
	return 0;
}

static int __init comer_init(void)
{
	began = comer_value(0);
	pr_info("comer: init began with %d\n", began);
	if (fail)
		return -EIO;
	return proc_create_single("comer", 0400, NULL, show) ? 0 : -ENOMEM;
}

static void __exit comer_exit(void)
{
	remove_proc_entry("comer", NULL);
}

module_init(comer_init);
module_exit(comer_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A module that comes late");

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch of the kernel's own kind, by hand, on functions that update_a
 * and update_b replace: victim_value() of the victim gives 5000, as does
 * cmdline_proc_show() of the kernel, and victim_sleeper() does not sleep.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static noinline int patched_value(int number)
{
	return 5000 + number;
}

static noinline int patched_sleeper(long how)
{
	return 5000;
}

static noinline int patched_cmdline_proc_show(struct seq_file *file, void *unused)
{
	seq_puts(file, "cmdline of update 5000\n");
	return 0;
}

static struct klp_func kernel_functions[] = {
	{ .old_name = "cmdline_proc_show", .new_func = patched_cmdline_proc_show },
	{ }
};

static struct klp_func victim_functions[] = {
	{ .old_name = "victim_value", .new_func = patched_value },
	{ .old_name = "victim_sleeper", .new_func = patched_sleeper },
	{ }
};

static struct klp_object objects[] = {
	{ .funcs = kernel_functions },
	{ .name = "victim", .funcs = victim_functions },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init live_patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit live_patch_exit(void)
{
}

module_init(live_patch_init);
module_exit(live_patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("A live patch by hand");

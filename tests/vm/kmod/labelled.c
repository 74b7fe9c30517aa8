// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A function that begins with a jump label, which the kernel patches.
 */
#include <linux/jump_label.h>
#include <linux/module.h>

static DEFINE_STATIC_KEY_FALSE(labelled_key);

static int seed;
module_param(seed, int, 0400);
MODULE_PARM_DESC(seed, "what the function gets");

static noinline int labelled(int number)
{
	if (static_branch_unlikely(&labelled_key))
		return number * 3;
	return number + 1;
}

static int __init labelled_init(void)
{
	seed = labelled(seed);
	return 0;
}

static void __exit labelled_exit(void)
{
}

module_init(labelled_init);
module_exit(labelled_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A function that begins with a jump label");

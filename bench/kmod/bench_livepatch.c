// SPDX-License-Identifier: GPL-2.0-or-later
/* The replacements as a live patch of the kernel's own kind. */
#include <linux/livepatch.h>
#include <linux/module.h>

#define VERSION		2000
#define PREFIX(n)	patched_##n
#include "functions.h"

static unsigned int count = NR_FUNCTIONS;
module_param(count, uint, 0400);
MODULE_PARM_DESC(count, "how many functions to replace");

#define FUNCTION(n)	{ .old_name = "bench_" #n, .new_func = patched_##n },
static struct klp_func functions[NR_FUNCTIONS + 1] = {
	HUNDRED(FUNCTION)
};

static struct klp_object objects[] = {
	{ .name = "bench_victim", .funcs = functions },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init bench_livepatch_init(void)
{
	if (count > NR_FUNCTIONS)
		return -ERANGE;
	/* A function without a name is the end. */
	memset(&functions[count], 0, sizeof(functions[count]));
	return klp_enable_patch(&patch);
}

static void __exit bench_livepatch_exit(void)
{
}

module_init(bench_livepatch_init);
module_exit(bench_livepatch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("The replacements as a live patch");

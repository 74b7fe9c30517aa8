// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kprobe on the entry of a function, by hand. It counts; given "override", it
 * leaves the function at once with a value, as the two ways of the kernel to do
 * that: fail_function has a post handler, bpf_override_return() has none.
 * Stock kernels of Debian have neither.
 */
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <asm/ptrace.h>

static char *function = "";
module_param(function, charp, 0400);
MODULE_PARM_DESC(function, "the function");

static bool post;
module_param(post, bool, 0400);
MODULE_PARM_DESC(post, "have a post handler");

static bool override;
module_param(override, bool, 0400);
MODULE_PARM_DESC(override, "return from the function at once");

static int value;
module_param(value, int, 0400);
MODULE_PARM_DESC(value, "what it returns then");

static unsigned int before;
module_param(before, uint, 0400);
MODULE_PARM_DESC(before, "how often the pre handler ran");

static unsigned int after;
module_param(after, uint, 0400);
MODULE_PARM_DESC(after, "how often the post handler ran");

/* The kernel's own, just_return_func(), is there with error injection only. */
void overrider_return(void);
asm(".pushsection .text\n"
    ".type overrider_return, @function\n"
    "overrider_return:\n"
    ANNOTATE_NOENDBR
    ASM_RET
    ".size overrider_return, . - overrider_return\n"
    ".popsection");

static int on_entry(struct kprobe *probe, struct pt_regs *regs)
{
	before++;
	if (!override)
		return 0;
	regs->ax = value;
	regs->ip = (unsigned long)overrider_return;
	return 1;
}

static void on_post(struct kprobe *probe, struct pt_regs *regs,
		    unsigned long flags)
{
	after++;
}

static struct kprobe probe = { .pre_handler = on_entry };

static int __init overrider_init(void)
{
	probe.symbol_name = function;
	if (post)
		probe.post_handler = on_post;
	return register_kprobe(&probe);
}

static void __exit overrider_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(overrider_init);
module_exit(overrider_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A kprobe that counts or overrides");

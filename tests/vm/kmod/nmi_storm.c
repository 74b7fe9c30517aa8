// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Non-maskable interrupts that call a function, whatever the CPUs are at: each
 * sends another to all other CPUs as long as "storm" is set. What the function at
 * "victim" gave is counted, and how many interrupts hit code at "core".
 */
#include <linux/module.h>
#include <linux/nmi.h>
#include <asm/apic.h>
#include <asm/nmi.h>

static unsigned long victim;
module_param(victim, ulong, 0400);
MODULE_PARM_DESC(victim, "address of int f(int)");

static unsigned long core[2];
module_param_array(core, ulong, NULL, 0400);
MODULE_PARM_DESC(core, "first address and size of code to watch");

static atomic_long_t calls, during, original, replaced, wrong;
static bool storm;

static int get_counts(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld %ld %ld %ld %ld\n",
			  atomic_long_read(&calls), atomic_long_read(&during),
			  atomic_long_read(&original),
			  atomic_long_read(&replaced), atomic_long_read(&wrong));
}

static const struct kernel_param_ops counts_ops = { .get = get_counts };
module_param_cb(counts, &counts_ops, NULL, 0400);
MODULE_PARM_DESC(counts, "calls, those that hit the core, and what came of all");

static int handler(unsigned int type, struct pt_regs *regs)
{
	int (*function)(int) = (void *)victim;
	int value = function(0);

	atomic_long_inc(&calls);
	if (regs->ip - core[0] < core[1])
		atomic_long_inc(&during);
	if (value == 1000)
		atomic_long_inc(&original);
	else if (value == 2000 || value == 3000)
		atomic_long_inc(&replaced);
	else
		atomic_long_inc(&wrong);
	if (READ_ONCE(storm))
		apic->send_IPI_allbutself(NMI_VECTOR);
	return NMI_HANDLED;
}

static int set_storm(const char *word, const struct kernel_param *kp)
{
	int error = param_set_bool(word, kp);

	if (!error && storm)
		apic->send_IPI_allbutself(NMI_VECTOR);
	return error;
}

static const struct kernel_param_ops storm_ops = {
	.set = set_storm,
	.get = param_get_bool,
};
module_param_cb(storm, &storm_ops, &storm, 0600);
MODULE_PARM_DESC(storm, "whether the interrupts go on");

static int __init nmi_storm_init(void)
{
	return register_nmi_handler(NMI_LOCAL, handler, 0, "nmi_storm");
}

static void __exit nmi_storm_exit(void)
{
	unregister_nmi_handler(NMI_LOCAL, "nmi_storm");
}

module_init(nmi_storm_init);
module_exit(nmi_storm_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Non-maskable interrupts that call a function");

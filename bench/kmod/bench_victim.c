// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The functions that are replaced. /proc/bench gives how many of them are new,
 * and how many ticks of the TSC passed at the last measurement; writing a
 * number measures that many calls of bench_00(), with interrupts off.
 */
#include <linux/irqflags.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <asm/msr.h>

#define VERSION		1000
#define PREFIX(n)	bench_##n
#include "functions.h"

#define POINTER(n)	bench_##n,
static unsigned int (*const functions[NR_FUNCTIONS])(unsigned int number) = {
	HUNDRED(POINTER)
};

static unsigned int nothing;	/* which the compiler must not know to be 0 */
static unsigned int result;	/* so that no call is for nothing */
static u64 ticks;

static int show(struct seq_file *file, void *unused)
{
	unsigned int i, fresh = 0;

	for (i = 0; i < NR_FUNCTIONS; i++)
		fresh += functions[i](READ_ONCE(nothing)) != VERSION + i;
	seq_printf(file, "%u %llu\n", fresh, ticks);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static ssize_t write(struct file *file, const char __user *from, size_t count,
		     loff_t *offset)
{
	unsigned int calls, i, sum = 0;
	unsigned long flags;
	u64 start;
	int error;

	error = kstrtouint_from_user(from, count, 10, &calls);
	if (error)
		return error;
	local_irq_save(flags);
	start = rdtsc_ordered();
	for (i = 0; i < calls; i++)
		sum += bench_00(READ_ONCE(nothing));
	ticks = rdtsc_ordered() - start;
	local_irq_restore(flags);
	WRITE_ONCE(result, sum);
	return count;
}

static const struct proc_ops operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_write = write,
	.proc_release = single_release,
};

static int __init bench_victim_init(void)
{
	return proc_create("bench", 0600, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit bench_victim_exit(void)
{
	remove_proc_entry("bench", NULL);
}

module_init(bench_victim_init);
module_exit(bench_victim_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Functions to be replaced");

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An update module by hand; update_a.c and update_b.c include this. The test
 * finds the addresses in /proc/kallsyms, as the daemon does, and passes them
 * as parameters. The expected bytes are what stands there at load time.
 *
 * Replaced are victim_value(), victim_sleeper() and victim_deep() of the victim,
 * and cmdline_proc_show() of the kernel itself. A further function of the kernel
 * can be given that is kept off stacks but gets no jump, unless "diverted" is set. Changed in place are, if
 * their addresses are given, victim_table of the victim and the start of
 * linux_proc_banner of the kernel, which /proc/version shows; and the hook of
 * victim_hooks of the victim, a pointer among data that are written.
 */
#include <linux/ctype.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/stringify.h>

#include "kspliced_abi.h"
#include "park.h"

#define NR_SPANS	5
#define NR_NEEDED	4
#define MAX_SIZE	1024
#define NR_DATA		3
#define DATUM_SIZE	16
#define ENDBR_SIZE	4
#define FENTRY_SIZE	5

static unsigned long addrs[NR_SPANS];
module_param_array(addrs, ulong, NULL, 0400);
MODULE_PARM_DESC(addrs, "addresses of the old functions");

static unsigned int sizes[NR_SPANS];
module_param_array(sizes, uint, NULL, 0400);
MODULE_PARM_DESC(sizes, "their sizes");

static unsigned int count = NR_NEEDED;
module_param(count, uint, 0400);
MODULE_PARM_DESC(count, "how many of the functions to replace");

static unsigned long places[NR_DATA];
static unsigned int nr_places;
module_param_array_named(data, places, ulong, &nr_places, 0400);
MODULE_PARM_DESC(data, "addresses of the constants");

static bool diverted;
module_param(diverted, bool, 0400);
MODULE_PARM_DESC(diverted, "have the further function return what the others do");

static unsigned int later;
module_param(later, uint, 0400);
MODULE_PARM_DESC(later, "how many bytes behind its place the first jump goes");

static char *wrong = "";
module_param(wrong, charp, 0400);
MODULE_PARM_DESC(wrong, "what to get wrong on purpose");

static u8 expect[NR_SPANS][MAX_SIZE];
static u8 mask[NR_SPANS][MAX_SIZE];

static noinline int new_value(int number)
{
	if (number >= PARK_HAND)
		return park_hand("handed over by update " __stringify(NEW_VALUE));
	return NEW_VALUE + number;
}

static noinline int new_hook(int number)
{
	return NEW_VALUE + 500 + number;
}

static noinline int new_sleeper(void)
{
	park_wait();
	return NEW_VALUE;
}

static noinline int new_deep(void)
{
	return NEW_VALUE;
}

static noinline int new_cmdline_proc_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "cmdline of update %d\n", NEW_VALUE);
	return 0;
}

static noinline int new_watched(void)
{
	return NEW_VALUE;
}

static struct kspliced_span spans[NR_SPANS] = {
	{ .name = "victim_value", .target = "victim" },
	{ .name = "victim_sleeper", .target = "victim" },
	{ .name = "victim_deep", .target = "victim" },
	{ .name = "cmdline_proc_show", .target = "vmlinux" },
	{ .name = "watched", .target = "vmlinux" },
};

static u8 stood[NR_DATA][DATUM_SIZE];
static u8 values[NR_DATA][DATUM_SIZE];

static struct kspliced_datum data[NR_DATA] = {
	{ .name = "victim_table", .target = "victim" },
	{ .name = "linux_proc_banner", .target = "vmlinux" },
	{ .name = "victim_hooks", .target = "victim" },
};
static const u32 data_sizes[NR_DATA] = { DATUM_SIZE, DATUM_SIZE, sizeof(void *) };

static struct kspliced_update update = {
	.abi = KSPLICED_ABI,
	.spans = spans,
	.data = data,
	.owner = THIS_MODULE,
};

/* How far the jump must stay behind the entry: the fentry slot, and endbr64 */
static unsigned int head_size(const u8 *code)
{
	bool slot = code[0] == 0xe8 || (code[0] == 0x0f && code[2] == 0x44);

	return slot ? FENTRY_SIZE : ENDBR_SIZE + FENTRY_SIZE;
}

static void fill(int i, unsigned long new_addr)
{
	spans[i].addr = addrs[i];
	spans[i].size = sizes[i];
	spans[i].new_addr = new_addr;
	spans[i].jump_offset = head_size((u8 *)addrs[i]);
	spans[i].expect = expect[i];
	spans[i].mask = mask[i];
	memcpy(expect[i], (void *)addrs[i], sizes[i]);
	memset(mask[i], 0xff, sizes[i]);
	memset(mask[i], 0, spans[i].jump_offset);
}

static void fill_data(void)
{
	unsigned int i;

	for (i = 0; i < nr_places; i++) {
		data[i].addr = places[i];
		data[i].size = data_sizes[i];
		data[i].expect = stood[i];
		data[i].value = values[i];
		memcpy(stood[i], (void *)places[i], data_sizes[i]);
		memcpy(values[i], (void *)places[i], data_sizes[i]);
	}
	for (i = 0; i < DATUM_SIZE / sizeof(int); i++)
		((int *)values[0])[i] = NEW_VALUE + i;
	for (i = sizeof("%s"); i < sizeof("%s version") - 1; i++)
		values[1][i] = NEW_VALUE == 2000 ? toupper(values[1][i]) : '.';
	*(unsigned long *)values[2] = (unsigned long)new_hook;
	update.nr_data = nr_places;
}

static void spoil(void)
{
	if (!strcmp(wrong, "data_byte"))
		stood[1][DATUM_SIZE - 1] ^= 0x40;
	else if (!strcmp(wrong, "data_size"))
		data[0].size = 0;
	else if (!strcmp(wrong, "data_outside"))
		data[0].addr = (unsigned long)stood;
	else if (!strcmp(wrong, "data_text"))
		data[1].addr = addrs[3];
	else if (!strcmp(wrong, "data_target"))
		data[1].target = "victim";
	else if (!strcmp(wrong, "data_value"))
		data[0].value = (u8 *)addrs[0];
	else if (!strcmp(wrong, "data_overlap"))
		data[1] = data[0];
	else if (!strcmp(wrong, "hook_misaligned"))
		data[2].addr -= 4;
	else if (!strcmp(wrong, "hook_large"))
		data[2].size *= 2;
	else if (!strcmp(wrong, "hook_code"))
		data[2].addr = ALIGN(addrs[0], sizeof(void *));
	else if (!strcmp(wrong, "byte"))
		expect[0][sizes[0] - 1] ^= 0x40;
	else if (!strcmp(wrong, "masked"))
		expect[0][0] ^= 0x40;
	else if (!strcmp(wrong, "abi"))
		update.abi++;
	else if (!strcmp(wrong, "empty"))
		update.nr_spans = update.nr_data = 0;
	else if (!strcmp(wrong, "size"))
		spans[1].size = 0;
	else if (!strcmp(wrong, "outside"))
		spans[1].addr = (unsigned long)expect;
	else if (!strcmp(wrong, "target"))
		spans[1].target = "vmlinux";
	else if (!strcmp(wrong, "new_addr"))
		spans[1].new_addr = addrs[0];
	else if (!strcmp(wrong, "fit"))
		spans[1].jump_offset = sizes[1] - 4;
	else if (!strcmp(wrong, "mask"))
		mask[1][spans[1].jump_offset + 4] = 0;
	else if (!strcmp(wrong, "overlap"))
		spans[1].addr = addrs[0] + 1;
	else if (!strcmp(wrong, "expect"))
		spans[1].expect = (u8 *)addrs[0];
	else if (!strcmp(wrong, "owner"))
		update.owner = NULL;
}

static int __init update_init(void)
{
	int error;
	int i;

	for (i = 0; i < max_t(int, count, NR_NEEDED); i++)
		if (i >= NR_SPANS || !addrs[i] || sizes[i] < 2 * FENTRY_SIZE || sizes[i] > MAX_SIZE)
			return -ERANGE;
	fill(0, (unsigned long)new_value);
	spans[0].jump_offset += later;
	fill(1, (unsigned long)new_sleeper);
	fill(2, (unsigned long)new_deep);
	fill(3, (unsigned long)new_cmdline_proc_show);
	if (count == NR_SPANS)
		fill(4, diverted ? (unsigned long)new_watched : 0);
	update.nr_spans = count;
	fill_data();
	spoil();
	error = kspliced_register_update(&update);
	if (!error && !strcmp(wrong, "slow"))
		park_wait();
	return error;
}

static void __exit update_exit(void)
{
	kspliced_unregister_update(&update);
}

module_init(update_init);
module_exit(update_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("An update by hand");

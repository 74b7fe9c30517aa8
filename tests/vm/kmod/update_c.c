// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An update by hand of one function, of a module that comes late if nothing else
 * is said: comer_value() gives 2000. The test passes where that is; what stands
 * there at load time is expected.
 */
#include <linux/module.h>
#include <linux/string.h>

#include "kspliced_abi.h"

#define MAX_SIZE	256

static unsigned long addr;
module_param(addr, ulong, 0400);
MODULE_PARM_DESC(addr, "address of the old function");

static unsigned int size;
module_param(size, uint, 0400);
MODULE_PARM_DESC(size, "its size");

static unsigned int head;
module_param(head, uint, 0400);
MODULE_PARM_DESC(head, "where its jump goes");

static char *target = "comer";
module_param(target, charp, 0400);
MODULE_PARM_DESC(target, "the module that has it, or vmlinux");

static u8 expect[MAX_SIZE];
static u8 mask[MAX_SIZE];

static noinline int new_value(int number)
{
	return 2000 + number;
}

/* A parameter's text does not lie in the module. */
static char owner[MODULE_NAME_LEN];

static struct kspliced_span spans[] = {
	{
		.name = "comer_value",
		.target = owner,
		.new_addr = (unsigned long)new_value,
		.expect = expect,
		.mask = mask,
	},
};

static struct kspliced_update update = {
	.abi = KSPLICED_ABI,
	.nr_spans = ARRAY_SIZE(spans),
	.spans = spans,
	.owner = THIS_MODULE,
};

static int __init update_init(void)
{
	if (!addr || size > MAX_SIZE || head >= size)
		return -ERANGE;
	if (strscpy(owner, target, sizeof(owner)) < 0)
		return -ERANGE;
	spans[0].addr = addr;
	spans[0].size = size;
	spans[0].jump_offset = head;
	memcpy(expect, (void *)addr, size);
	memset(mask, 0xff, size);
	memset(mask, 0, head);
	return kspliced_register_update(&update);
}

static void __exit update_exit(void)
{
	kspliced_unregister_update(&update);
}

module_init(update_init);
module_exit(update_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("An update by hand of a module that comes late");

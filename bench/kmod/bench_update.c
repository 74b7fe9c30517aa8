// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The replacements as an update of kspliced. Where the old functions lie are
 * parameters; the expected bytes are what stands there at load time.
 */
#include <linux/module.h>
#include <linux/string.h>

#include "kspliced_abi.h"

#define VERSION		2000
#define PREFIX(n)	new_##n
#include "functions.h"

#define MAX_SIZE	512
#define ENDBR_SIZE	4
#define FENTRY_SIZE	5

static unsigned long addrs[NR_FUNCTIONS];
static unsigned int count;
module_param_array(addrs, ulong, &count, 0400);
MODULE_PARM_DESC(addrs, "addresses of the old functions");

static unsigned int sizes[NR_FUNCTIONS];
module_param_array(sizes, uint, NULL, 0400);
MODULE_PARM_DESC(sizes, "their sizes");

#define POINTER(n)	new_##n,
static unsigned int (*const replacements[NR_FUNCTIONS])(unsigned int number) = {
	HUNDRED(POINTER)
};

static u8 expect[NR_FUNCTIONS][MAX_SIZE];
static u8 mask[NR_FUNCTIONS][MAX_SIZE];
static struct kspliced_span spans[NR_FUNCTIONS];

static struct kspliced_update update = {
	.abi = KSPLICED_ABI,
	.spans = spans,
	.owner = THIS_MODULE,
};

static void fill(unsigned int i)
{
	const u8 *code = (const u8 *)addrs[i];

	/* Behind endbr64, where there is one, and the fentry slot. */
	spans[i].jump_offset = FENTRY_SIZE + (code[0] == 0xf3 ? ENDBR_SIZE : 0);
	spans[i].name = "bench";
	spans[i].target = "bench_victim";
	spans[i].addr = addrs[i];
	spans[i].size = sizes[i];
	spans[i].new_addr = (unsigned long)replacements[i];
	spans[i].expect = expect[i];
	spans[i].mask = mask[i];
	memcpy(expect[i], code, sizes[i]);
	memset(mask[i] + spans[i].jump_offset, 0xff, sizes[i] - spans[i].jump_offset);
}

static int __init bench_update_init(void)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (!addrs[i] || sizes[i] < 4 * FENTRY_SIZE || sizes[i] > MAX_SIZE)
			return -ERANGE;
		fill(i);
	}
	update.nr_spans = count;
	return kspliced_register_update(&update);
}

static void __exit bench_update_exit(void)
{
	kspliced_unregister_update(&update);
}

module_init(bench_update_init);
module_exit(bench_update_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("The replacements as an update");

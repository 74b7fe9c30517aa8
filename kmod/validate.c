// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is an update what it says? Checked once, when its module registers it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/string.h>

#include "data.h"
#include "owner.h"
#include "site.h"
#include "symbols.h"
#include "validate.h"

/* Whether @size bytes at @addr lie in the module, outside its init part. */
static bool owns(const struct module *mod, const void *addr, size_t size)
{
	unsigned long first = (unsigned long)addr;

	return size && first + size > first && within_module_core(first, mod) &&
	       within_module_core(first + size - 1, mod);
}

/* Whether a string starts in the module and ends before @max bytes. */
static bool owns_string(const struct module *mod, const char *string, size_t max)
{
	return owns(mod, string, 1) && strnlen(string, max) < max;
}

/* Why the code of a span is not what it is said to be, or NULL. */
static const char *check_place(const struct kspliced_span *span)
{
	unsigned long first = span->addr;
	unsigned long last = first + span->size - 1;
	struct module *mod;
	const char *why = NULL;

	if (!span->size || last < first)
		return "size is 0 or wraps around";
	if (!strcmp(span->target, KSPLICED_VMLINUX)) {
		if (!static_call(kspliced_core_kernel_text)(first) ||
		    !static_call(kspliced_core_kernel_text)(last))
			why = "does not lie in the kernel's text";
		return why;
	}
	preempt_disable();
	mod = kspliced_text_owner(first);
	if (!mod || mod != kspliced_text_owner(last))
		why = "does not lie in the text of one module";
	else if (strcmp(mod->name, span->target))
		why = "does not lie in the module that it names";
	else if (mod == THIS_MODULE)
		why = "lies in the core itself";
	preempt_enable();
	return why;
}

/* Why the kernel would not have a jump at @addr, or NULL: by its own tables. */
static const char *check_reserved(unsigned long addr)
{
	if (kspliced_no_breakpoint(addr))
		return "the jump is where the kernel allows no breakpoint";
	return kspliced_text_reserved((void *)addr,
				      (void *)(addr + JMP32_INSN_SIZE - 1));
}

/* Why the jump of a span cannot be written, or NULL. */
static const char *check_jump(const struct kspliced_span *span,
			      const struct module *owner)
{
	long displacement;
	int i;

	if (!span->new_addr)
		return NULL;
	if (kspliced_text_owner(span->new_addr) != owner)
		return "new_addr is not in the text of the update";
	if (span->size < JMP32_INSN_SIZE ||
	    span->jump_offset > span->size - JMP32_INSN_SIZE)
		return "the jump does not fit";
	displacement = span->new_addr - kspliced_jump_addr(span) - JMP32_INSN_SIZE;
	if (displacement != (s32)displacement)
		return "new_addr is out of reach of a jump";
	for (i = 0; i < JMP32_INSN_SIZE; i++)
		if (span->mask[span->jump_offset + i] != 0xff)
			return "the jump overlaps bytes that the kernel may rewrite";
	return check_reserved(kspliced_jump_addr(span));
}

static const char *check_span(const struct kspliced_span *span,
			      const struct module *owner)
{
	const char *why;

	if (!owns_string(owner, span->name, KSYM_NAME_LEN) ||
	    !owns_string(owner, span->target, MODULE_NAME_LEN))
		return "has no name or no target";
	why = check_place(span);
	if (why)
		return why;
	if (!owns(owner, span->expect, span->size) ||
	    !owns(owner, span->mask, span->size))
		return "expect or mask is not in the update";
	return check_jump(span, owner);
}

/* Why a datum is not where it is said to be, or NULL. */
static const char *check_data_place(const struct kspliced_datum *datum)
{
	unsigned long last = datum->addr + datum->size - 1;
	bool (*core_data)(unsigned long addr) = kspliced_core_rodata;
	bool (*within)(unsigned long addr, const struct module *mod) = kspliced_within_rodata;
	struct module *mod;
	const char *why = NULL;

	if (kspliced_is_pointer(datum)) {
		core_data = kspliced_core_data;
		within = kspliced_within_data;
	}
	if (!strcmp(datum->target, KSPLICED_VMLINUX)) {
		if (!core_data(datum->addr) || !core_data(last))
			why = "does not lie in the kernel's read-only data";
		return why;
	}
	preempt_disable();
	mod = kspliced_owner(datum->addr, within);
	if (!mod || mod != kspliced_owner(last, within))
		why = "does not lie in the read-only data of one module";
	else if (strcmp(mod->name, datum->target))
		why = "does not lie in the module that it names";
	else if (mod == THIS_MODULE)
		why = "lies in the core itself";
	preempt_enable();
	return why;
}

static const char *check_datum(const struct kspliced_datum *datum,
			       const struct module *owner)
{
	if (!owns_string(owner, datum->name, KSYM_NAME_LEN) ||
	    !owns_string(owner, datum->target, MODULE_NAME_LEN))
		return "has no name or no target";
	if (!datum->size || datum->size > KSPLICED_MAX_DATUM ||
	    datum->addr + datum->size - 1 < datum->addr)
		return "size is 0, too large or wraps around";
	if (!owns(owner, datum->expect, datum->size) ||
	    !owns(owner, datum->value, datum->size))
		return "expect or value is not in the update";
	return check_data_place(datum);
}

static const char *check_header(const struct kspliced_update *update)
{
	const struct module *mod;

	preempt_disable();
	mod = static_call(kspliced_module_address)((unsigned long)update);
	preempt_enable();
	if (!mod || mod != update->owner ||
	    !owns(mod, update, sizeof(*update)))
		return "it does not lie in the module that owns it";
	if (update->abi != KSPLICED_ABI)
		return "it is for another version of the interface";
	if (update->nr_spans > KSPLICED_MAX_SPANS ||
	    update->nr_data > KSPLICED_MAX_DATA)
		return "it has too many spans or data";
	if (!update->nr_spans && !update->nr_data)
		return "it has no spans and no data";
	if (update->nr_spans &&
	    !owns(mod, update->spans, update->nr_spans * sizeof(*update->spans)))
		return "its spans do not lie in the module";
	if (update->nr_data &&
	    !owns(mod, update->data, update->nr_data * sizeof(*update->data)))
		return "its data do not lie in the module";
	return NULL;
}

/**
 * kspliced_validate() - check everything that the switch will rely on
 * @update: what an update module passes, written by a linker and not a
 *          compiler, so nothing is taken for granted
 *
 * Return: 0, or -EINVAL after one message that says what is wrong with it.
 */
int kspliced_validate(const struct kspliced_update *update)
{
	const char *why = check_header(update);
	const struct kspliced_datum *datum;
	const struct kspliced_span *span;
	u32 i;

	if (why) {
		pr_err("update refused: %s (interface %u)\n", why, KSPLICED_ABI);
		return -EINVAL;
	}
	for (i = 0; i < update->nr_spans; i++) {
		span = &update->spans[i];
		why = check_span(span, update->owner);
		if (!why)
			continue;
		pr_err("update %s refused: span %u (%pS): %s\n",
		       update->owner->name, i, (void *)span->addr, why);
		return -EINVAL;
	}
	for (i = 0; i < update->nr_data; i++) {
		datum = &update->data[i];
		why = check_datum(datum, update->owner);
		if (!why)
			continue;
		pr_err("update %s refused: datum %u (%pS): %s\n",
		       update->owner->name, i, (void *)datum->addr, why);
		return -EINVAL;
	}
	return 0;
}

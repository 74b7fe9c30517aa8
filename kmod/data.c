// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Constants of the running kernel that an update changes in place, and pointers
 * among its other data. They are mapped a second time, writable, for as long as
 * a switch takes; compared and written under stop_machine().
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "attempt.h"
#include "data.h"
#include "owner.h"
#include "range.h"
#include "state.h"

#define MAX_PAGES	(KSPLICED_MAX_DATUM / PAGE_SIZE + 1)

/* Give each constant its part of @live->originals; refuse what overlaps. */
static int place_originals(struct kspliced_live *live)
{
	const struct kspliced_datum *datum, *before = NULL;
	size_t size = 0;
	u32 i;

	for (i = 0; i < live->update->nr_data; i++) {
		datum = live->constants[i].datum;
		if (before && before->addr + before->size > datum->addr) {
			pr_err("update %s refused: data %s and %s overlap\n",
			       live->update->owner->name, before->name,
			       datum->name);
			return -EINVAL;
		}
		before = datum;
		size += datum->size;
	}
	live->originals = kvmalloc(size, GFP_KERNEL);
	if (!live->originals)
		return -ENOMEM;
	for (i = live->update->nr_data; i > 0; i--) {
		size -= live->constants[i - 1].datum->size;
		live->constants[i - 1].original = live->originals + size;
	}
	return 0;
}

/**
 * kspliced_make_constants() - sort the data by address and make room for originals
 * @live: an update that is about to be registered
 *
 * Return: 0, -ENOMEM, or -EINVAL after a message.
 */
int kspliced_make_constants(struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	u32 i;

	if (!update->nr_data)
		return 0;
	live->constants = kvcalloc(update->nr_data, sizeof(*live->constants),
				   GFP_KERNEL);
	if (!live->constants)
		return -ENOMEM;
	live->nr_constants = update->nr_data;
	for (i = 0; i < update->nr_data; i++) {
		live->constants[i].range.addr = update->data[i].addr;
		live->constants[i].range.size = update->data[i].size;
		live->constants[i].datum = &update->data[i];
	}
	kspliced_sort_ranges(live->constants, update->nr_data,
			     sizeof(*live->constants));
	return place_originals(live);
}

/**
 * kspliced_forget_constants() - forget the constants in a module that goes
 * @live: a registered update
 * @target: the name of the module
 *
 * Context: under kspliced_lock.
 */
void kspliced_forget_constants(struct kspliced_live *live, const char *target)
{
	u32 from, to = 0;

	for (from = 0; from < live->nr_constants; from++)
		if (strcmp(live->constants[from].datum->target, target))
			live->constants[to++] = live->constants[from];
	live->nr_constants = to;
}

/**
 * kspliced_has_constant() - is the target of a datum still there?
 * @live: a registered update
 * @datum: one of its data
 *
 * Context: under kspliced_lock.
 * Return: false if it went while the update was applied.
 */
bool kspliced_has_constant(const struct kspliced_live *live,
			   const struct kspliced_datum *datum)
{
	u32 i;

	for (i = 0; i < live->nr_constants; i++)
		if (live->constants[i].datum == datum)
			return true;
	return false;
}

/* The page of a constant; the module that owns it is pinned. */
static struct page *page_of(const struct kspliced_datum *datum,
			    unsigned long addr)
{
	if (strcmp(datum->target, KSPLICED_VMLINUX))
		return vmalloc_to_page((const void *)addr);
	return pfn_to_page(PHYS_PFN(__pa_symbol(addr)));
}

static int map_datum(struct kspliced_constant *constant)
{
	const struct kspliced_datum *datum = constant->datum;
	unsigned long first = datum->addr & PAGE_MASK;
	unsigned long end = datum->addr + datum->size;
	struct page *pages[MAX_PAGES];
	unsigned int nr = 0;
	void *base;

	for (; first < end; first += PAGE_SIZE) {
		pages[nr] = page_of(datum, first);
		if (WARN_ON_ONCE(!pages[nr]))
			return -EFAULT;
		nr++;
	}
	base = vmap(pages, nr, VM_MAP, PAGE_KERNEL);
	if (!base)
		return -ENOMEM;
	constant->alias = base + offset_in_page(datum->addr);
	return 0;
}

/**
 * kspliced_map_data() - make the constants of an update writable at an alias
 * @live: an update whose targets are pinned
 *
 * Return: 0 or a negative error number; kspliced_unmap_data() is due in both
 * cases.
 */
int kspliced_map_data(struct kspliced_live *live)
{
	int error;
	u32 i;

	for (i = 0; i < live->nr_constants; i++) {
		error = map_datum(&live->constants[i]);
		if (error)
			return error;
	}
	return 0;
}

/**
 * kspliced_unmap_data() - remove what kspliced_map_data() made
 * @live: a registered update
 */
void kspliced_unmap_data(struct kspliced_live *live)
{
	u32 i;

	for (i = 0; i < live->nr_constants; i++) {
		if (live->constants[i].alias)
			vunmap((void *)((unsigned long)live->constants[i].alias &
					PAGE_MASK));
		live->constants[i].alias = NULL;
	}
}

/* The byte at @addr as it was before @out, if that changed it. */
static u8 original_byte(const struct kspliced_live *out, unsigned long addr)
{
	const struct kspliced_constant *constant = NULL;

	if (out)
		constant = kspliced_find_range(out->constants, out->nr_constants,
					       sizeof(*constant), addr);
	if (constant)
		return constant->original[addr - constant->datum->addr];
	return *(const u8 *)addr;
}

/* Whether @expect stands at @datum, with the originals of @out put back. */
static bool verify(struct kspliced_attempt *attempt,
		   const struct kspliced_datum *datum, const u8 *expect,
		   const struct kspliced_live *out)
{
	struct kspliced_mismatch *mismatch;
	u32 offset, i;

	for (offset = 0; offset < datum->size; offset++)
		if (original_byte(out, datum->addr + offset) != expect[offset])
			break;
	if (offset == datum->size)
		return true;
	mismatch = kspliced_record_mismatch(attempt, datum->name, datum->target,
					    offset, datum->size - offset);
	for (i = 0; mismatch && i < mismatch->len; i++) {
		mismatch->expected[i] = expect[offset + i];
		mismatch->found[i] = original_byte(out, datum->addr + offset + i);
	}
	return false;
}

/**
 * kspliced_verify_values() - do the values of the leaving update still stand?
 * @attempt: the attempt at hand
 */
void kspliced_verify_values(struct kspliced_attempt *attempt)
{
	const struct kspliced_datum *datum;
	u32 i;

	for (i = 0; i < attempt->out->nr_constants; i++) {
		datum = attempt->out->constants[i].datum;
		verify(attempt, datum, datum->value, NULL);
	}
}

/**
 * kspliced_verify_data() - are the constants what user space matched?
 * @attempt: the attempt at hand
 *
 * Where the leaving update has written, what it replaced counts.
 */
void kspliced_verify_data(struct kspliced_attempt *attempt)
{
	const struct kspliced_datum *datum;
	u32 i;

	for (i = 0; i < attempt->in->update->nr_data; i++) {
		datum = attempt->in->constants[i].datum;
		verify(attempt, datum, datum->expect, attempt->out);
	}
}

/**
 * kspliced_is_pointer() - is a datum a pointer by itself?
 * @datum: any datum
 *
 * Such a one may stand among data that are written.
 *
 * Return: true if it is.
 */
bool kspliced_is_pointer(const struct kspliced_datum *datum)
{
	return datum->size == sizeof(void *) &&
	       IS_ALIGNED(datum->addr, sizeof(void *));
}

/* Nobody sees half of a pointer, not even a non-maskable interrupt. */
static void write_datum(const struct kspliced_constant *constant,
			const u8 *value)
{
	const struct kspliced_datum *datum = constant->datum;
	unsigned long pointer;

	if (!kspliced_is_pointer(datum)) {
		memcpy(constant->alias, value, datum->size);
		return;
	}
	memcpy(&pointer, value, sizeof(pointer));
	WRITE_ONCE(*(unsigned long *)constant->alias, pointer);
}

/**
 * kspliced_restore_data() - put back what stood in the constants
 * @live: an update that is applied, its data mapped
 */
void kspliced_restore_data(struct kspliced_live *live)
{
	const struct kspliced_constant *constant;
	u32 i;

	for (i = 0; i < live->nr_constants; i++) {
		constant = &live->constants[i];
		write_datum(constant, constant->original);
	}
}

/**
 * kspliced_write_data() - keep what stands in the constants and write the values
 * @live: an update whose data are verified and mapped, with no other applied
 */
void kspliced_write_data(struct kspliced_live *live)
{
	const struct kspliced_constant *constant;
	u32 i;

	for (i = 0; i < live->update->nr_data; i++) {
		constant = &live->constants[i];
		memcpy(constant->original, (const void *)constant->datum->addr,
		       constant->datum->size);
		write_datum(constant, constant->datum->value);
	}
}

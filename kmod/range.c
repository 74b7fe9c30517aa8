// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Arrays that are sorted by address, each element of which begins with the range
 * of memory that it is for.
 */
#include <linux/bsearch.h>
#include <linux/kprobes.h>
#include <linux/sort.h>

#include "range.h"

static int compare_ranges(const void *one, const void *other)
{
	unsigned long a = ((const struct kspliced_range *)one)->addr;
	unsigned long b = ((const struct kspliced_range *)other)->addr;

	return a < b ? -1 : a > b;
}

static __always_inline int compare_address(const void *key, const void *element)
{
	const struct kspliced_range *range = element;
	unsigned long addr = (unsigned long)key;

	if (addr < range->addr)
		return -1;
	return addr - range->addr >= range->size;
}

/**
 * kspliced_sort_ranges() - sort an array by address
 * @elements: each begins with a struct kspliced_range
 * @nr: how many they are
 * @size: bytes of an element
 */
void kspliced_sort_ranges(void *elements, size_t nr, size_t size)
{
	sort(elements, nr, size, compare_ranges, NULL);
}

/**
 * kspliced_find_range() - the element whose range holds an address
 * @elements: sorted, no two of them overlap
 * @nr: how many they are
 * @size: bytes of an element
 * @addr: any value
 *
 * Return: the element, or NULL.
 */
void *kspliced_find_range(const void *elements, size_t nr, size_t size,
			  unsigned long addr)
{
	const void *key = (const void *)addr;

	/* Most addresses of a stack are no match for any, and all CPUs wait. */
	if (!nr || compare_address(key, elements) < 0 ||
	    compare_address(key, elements + (nr - 1) * size) > 0)
		return NULL;
	return __inline_bsearch(key, elements, nr, size, compare_address);
}

NOKPROBE_SYMBOL(kspliced_find_range);	/* a breakpoint asks, poke.c */

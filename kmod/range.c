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
 * kspliced_search_range() - as kspliced_find_range(), for an address between them
 * @elements: sorted, no two of them overlap
 * @nr: how many they are
 * @size: bytes of an element
 * @addr: any value
 *
 * Return: the element, or NULL.
 */
void *kspliced_search_range(const void *elements, size_t nr, size_t size,
			    unsigned long addr)
{
	return __inline_bsearch((const void *)addr, elements, nr, size,
				kspliced_compare_range);
}

NOKPROBE_SYMBOL(kspliced_search_range);	/* a breakpoint asks, poke.c */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Arrays that are sorted by address: range.c */
#ifndef KSPLICED_RANGE_H
#define KSPLICED_RANGE_H

#include <linux/types.h>

/**
 * struct kspliced_range - what an element is sorted by, its first member
 * @addr: of the first byte
 * @size: bytes
 */
struct kspliced_range {
	unsigned long addr;
	unsigned long size;
};

void kspliced_sort_ranges(void *elements, size_t nr, size_t size);
void *kspliced_search_range(const void *elements, size_t nr, size_t size,
			    unsigned long addr);

/* Where an address, the key, is: before a range, in it, or behind it. */
static __always_inline int kspliced_compare_range(const void *key,
						  const void *element)
{
	const struct kspliced_range *range = element;
	unsigned long addr = (unsigned long)key;

	if (addr < range->addr)
		return -1;
	return addr - range->addr >= range->size;
}

/**
 * kspliced_find_range() - the element whose range holds an address
 * @elements: sorted, no two of them overlap
 * @nr: how many they are
 * @size: bytes of an element
 * @addr: any value
 *
 * Most addresses of a stack are no match for any, and all CPUs wait: that is
 * found without a call.
 *
 * Return: the element, or NULL.
 */
static __always_inline void *kspliced_find_range(const void *elements,
						 size_t nr, size_t size,
						 unsigned long addr)
{
	const void *key = (const void *)addr;

	if (!nr || kspliced_compare_range(key, elements) < 0 ||
	    kspliced_compare_range(key, elements + (nr - 1) * size) > 0)
		return NULL;
	return kspliced_search_range(elements, nr, size, addr);
}

#endif /* KSPLICED_RANGE_H */

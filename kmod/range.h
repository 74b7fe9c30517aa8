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
void *kspliced_find_range(const void *elements, size_t nr, size_t size,
			  unsigned long addr);

#endif /* KSPLICED_RANGE_H */

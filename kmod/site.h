/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The spans of an update, and their jumps: site.c */
#ifndef KSPLICED_SITE_H
#define KSPLICED_SITE_H

#include <asm/text-patching.h>

#include "range.h"
#include "state.h"

#define KSPLICED_MAX_SPANS	65536

/**
 * struct kspliced_site - a span with what the core keeps of it
 * @range: where the span is
 * @span: the span, in the update module's memory
 * @jump: the jump to the replacement, made once at registration
 * @original: what stood there; valid while the update is applied
 */
struct kspliced_site {
	struct kspliced_range range;
	const struct kspliced_span *span;
	u8 jump[JMP32_INSN_SIZE];
	u8 original[JMP32_INSN_SIZE];
};

static inline unsigned long kspliced_jump_addr(const struct kspliced_span *span)
{
	return span->addr + span->jump_offset;
}

int kspliced_make_sites(struct kspliced_live *live);
struct kspliced_site *kspliced_find_site(const struct kspliced_live *live,
					 unsigned long addr);
void kspliced_forget_sites(struct kspliced_live *live, const char *target);
const struct kspliced_span *kspliced_clash(const struct kspliced_live *in,
					   const struct kspliced_live *out);

#endif /* KSPLICED_SITE_H */

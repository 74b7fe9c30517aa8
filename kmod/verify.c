// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bytes of the running kernel: compare them with what user space matched,
 * and with the jumps. Nothing is written here. Under stop_machine().
 */
#include <linux/string.h>

#include "attempt.h"
#include "site.h"
#include "state.h"
#include "symbols.h"
#include "verify.h"

/*
 * A kprobe in the jump that is disarmed at the moment leaves no trace in the
 * text, but arming it later would break the jump or revive a copy of it.
 */
static void check_probes(struct kspliced_attempt *attempt,
			 const struct kspliced_span *span, u32 end)
{
	u32 offset;

	for (offset = span->jump_offset; offset < end; offset++)
		if (static_call(kspliced_get_kprobe)((u8 *)span->addr + offset))
			kspliced_record_probe(attempt, span, offset);
}

/*
 * Whether a kprobe made the byte at @offset differ: its int3 there, or the jump
 * of an optimised one that starts up to four bytes before. It is recorded then.
 */
static bool probe_at(struct kspliced_attempt *attempt,
		     const struct kspliced_span *span, u32 offset)
{
	u32 from = offset - min_t(u32, offset, JMP32_INSN_SIZE - 1);

	for (; from <= offset; from++)
		if (static_call(kspliced_get_kprobe)((u8 *)span->addr + from)) {
			kspliced_record_probe(attempt, span, from);
			return true;
		}
	return false;
}

/**
 * kspliced_verify_jumps() - are the jumps of the leaving update still ours?
 * @attempt: the attempt at hand
 */
void kspliced_verify_jumps(struct kspliced_attempt *attempt)
{
	const struct kspliced_live *out = attempt->out;
	const struct kspliced_site *site;
	struct kspliced_mismatch *mismatch;
	unsigned int probes;
	const u8 *text;
	u32 i;

	for (i = 0; i < out->nr_sites; i++) {
		site = &out->sites[i];
		if (!site->span->new_addr)
			continue;
		/*
		 * Behind the jump too: while it stands, kprobes take the rest of
		 * the instruction that it cuts for one of its own.
		 */
		probes = attempt->nr_probes;
		check_probes(attempt, site->span, site->span->size);
		text = (const u8 *)kspliced_jump_addr(site->span);
		if (!memcmp(text, site->jump, JMP32_INSN_SIZE) ||
		    attempt->nr_probes > probes)
			continue;
		mismatch = kspliced_record_mismatch(attempt, site->span->name,
						    site->span->target,
						    site->span->jump_offset,
						    JMP32_INSN_SIZE);
		if (!mismatch)
			return;
		memcpy(mismatch->expected, site->jump, JMP32_INSN_SIZE);
		memcpy(mismatch->found, text, JMP32_INSN_SIZE);
	}
}

/*
 * The byte at @addr as it was before any update. @cursor is an index into the
 * sites of @out that only moves forward, as the addresses asked for do.
 */
static u8 original_byte(const struct kspliced_live *out, u32 *cursor,
			unsigned long addr)
{
	const struct kspliced_span *span;
	unsigned long offset;

	for (; out && *cursor < out->nr_sites; (*cursor)++) {
		span = out->sites[*cursor].span;
		if (addr >= span->addr + span->size)
			continue;
		offset = addr - kspliced_jump_addr(span);
		if (span->new_addr && offset < JMP32_INSN_SIZE)
			return out->sites[*cursor].original[offset];
		break;
	}
	return *(const u8 *)addr;
}

/* Record the first difference in @span; @cursor points at or before it. */
static bool verify_span(struct kspliced_attempt *attempt,
			const struct kspliced_span *span, u32 *cursor)
{
	struct kspliced_mismatch *mismatch;
	u32 offset, i;
	u8 found;

	for (offset = 0; offset < span->size; offset++) {
		found = original_byte(attempt->out, cursor, span->addr + offset);
		if ((found ^ span->expect[offset]) & span->mask[offset])
			break;
	}
	if (offset == span->size || probe_at(attempt, span, offset))
		return true;

	mismatch = kspliced_record_mismatch(attempt, span->name, span->target,
					    offset, span->size - offset);
	if (!mismatch)
		return false;
	for (i = 0; i < mismatch->len; i++) {
		mismatch->expected[i] = span->expect[offset + i];
		mismatch->found[i] = original_byte(attempt->out, cursor,
						   span->addr + offset + i);
	}
	return true;
}

/**
 * kspliced_verify_spans() - is the running code what user space matched?
 * @attempt: the attempt at hand
 *
 * Where the leaving update has its jumps, the bytes that it replaced count.
 */
void kspliced_verify_spans(struct kspliced_attempt *attempt)
{
	const struct kspliced_live *in = attempt->in;
	u32 cursor = 0;
	u32 i;

	for (i = 0; i < in->update->nr_spans; i++) {
		if (in->sites[i].span->new_addr)
			check_probes(attempt, in->sites[i].span,
				     in->sites[i].span->jump_offset + JMP32_INSN_SIZE);
		if (!verify_span(attempt, in->sites[i].span, &cursor))
			return;
	}
}

/**
 * kspliced_keep_originals() - keep what stands where jumps will be written
 * @attempt: the attempt at hand, its text verified
 *
 * That is what stood there before any update.
 */
void kspliced_keep_originals(struct kspliced_attempt *attempt)
{
	struct kspliced_live *in = attempt->in;
	struct kspliced_site *site;
	u32 cursor = 0;
	u32 i, offset;

	for (i = 0; i < in->update->nr_spans; i++) {
		site = &in->sites[i];
		if (!site->span->new_addr)
			continue;
		for (offset = 0; offset < JMP32_INSN_SIZE; offset++)
			site->original[offset] =
				original_byte(attempt->out, &cursor,
					      kspliced_jump_addr(site->span) + offset);
	}
}

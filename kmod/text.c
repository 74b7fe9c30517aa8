// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Files that may grow beyond a page. They are binary attributes; their text is
 * made line by line for each read, so nothing is allocated.
 */
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "attempt.h"
#include "data.h"
#include "hold.h"
#include "redirect.h"
#include "site.h"
#include "state.h"
#include "symbols.h"
#include "text.h"

#define LINE_LEN	(KSYM_NAME_LEN + MODULE_NAME_LEN + 128)
#define HEX_LINE	64	/* bytes that a line shows; printk's %*ph takes no more */

/* The part of a long text that a reader asked for. */
struct window {
	char *buf;
	loff_t offset;
	size_t count;
	loff_t pos;		/* length of the text so far */
	size_t filled;
};

static __printf(2, 3) void emit(struct window *window, const char *format, ...)
{
	char line[LINE_LEN];
	size_t length, skip, take;
	va_list args;

	va_start(args, format);
	length = vscnprintf(line, sizeof(line), format, args);
	va_end(args);

	skip = clamp_t(loff_t, window->offset - window->pos, 0, length);
	take = min(length - skip, window->count - window->filled);
	memcpy(window->buf + window->filled, line + skip, take);
	window->filled += take;
	window->pos += length;
}

typedef void (*text_fn)(struct window *window, struct kspliced_live *live);

static ssize_t read_text(struct kobject *kobj, char *buf, loff_t offset,
			 size_t count, text_fn text)
{
	struct window window = { .buf = buf, .offset = offset, .count = count };

	mutex_lock(&kspliced_lock);
	text(&window, kspliced_of_kobject(kobj));
	mutex_unlock(&kspliced_lock);
	return window.filled;
}

/* The name of a thread with what would break a line or a field as \xNN. */
static void escape(char *to, const char *from)
{
	for (; *from; from++) {
		if (*from > ' ' && *from < 0x7f && *from != '\\')
			*to++ = *from;
		else
			to += sprintf(to, "\\x%02x", (u8)*from);
	}
	*to = '\0';
}

static unsigned int nr_conflicts(const struct kspliced_live *live)
{
	if (!live->report)
		return 0;
	return min(atomic_read(&live->report->nr_conflicts),
		   KSPLICED_MAX_REPORTS);
}

static void conflicts_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_conflict *conflict;
	char comm[4 * TASK_COMM_LEN];	/* each byte may become four */
	unsigned int i;

	for (i = 0; i < nr_conflicts(live); i++) {
		conflict = &live->report->conflicts[i];
		escape(comm, conflict->comm);
		emit(window, "%d %s\t%s\t%s\n", conflict->pid, comm,
		     conflict->where, conflict->reliable ? "reliable" : "scan");
	}
}

static void mismatch_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_mismatch *mismatch;
	unsigned int i;

	for (i = 0; live->report && i < live->report->nr_mismatches; i++) {
		mismatch = &live->report->mismatches[i];
		emit(window, "%s\t%s\t%u\t%*phN\t%*phN\n", mismatch->target,
		     mismatch->name, mismatch->offset,
		     (int)mismatch->len, mismatch->expected,
		     (int)mismatch->len, mismatch->found);
	}
}

static void probes_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_probe *probe;
	unsigned int i;

	for (i = 0; live->report && i < live->report->nr_probes; i++) {
		probe = &live->report->probes[i];
		emit(window, "%s\t%s\t%u\n", probe->target, probe->name,
		     probe->offset);
	}
}

static void redirected_line(const struct kspliced_span *span, void *window)
{
	emit(window, "%s\t%s\n", span->target, span->name);
}

/* As it is now, not as it was at the last attempt. */
static void redirected_text(struct window *window, struct kspliced_live *live)
{
	kspliced_lock_entries();
	kspliced_for_redirected(live, redirected_line, window);
	kspliced_unlock_entries();
}

static void stacks_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_conflict *conflict;
	char comm[4 * TASK_COMM_LEN];
	char symbol[KSYM_SYMBOL_LEN];
	unsigned int i, frame;

	for (i = 0; i < nr_conflicts(live); i++) {
		conflict = &live->report->conflicts[i];
		escape(comm, conflict->comm);
		emit(window, "%d %s\t", conflict->pid, comm);
		for (frame = 0; frame < conflict->nr_trace; frame++) {
			/* name+0xOFF/0xSIZE [module] */
			sprint_symbol(symbol, conflict->trace[frame]);
			symbol[strcspn(symbol, "/ ")] = '\0';
			emit(window, "%s%s", frame ? " " : "", symbol);
		}
		emit(window, "\n");
	}
}

static void spans_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_span *span;
	u32 i;

	for (i = 0; i < live->update->nr_spans; i++) {
		span = &live->update->spans[i];
		if (kspliced_find_site(live, span->addr))
			emit(window, "0x%lx\t%u\t%u\t0x%lx\t%s\t%s\n", span->addr,
			     span->size, span->jump_offset, span->new_addr,
			     span->target, span->name);
	}
}

static void data_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_datum *datum;
	u32 i;

	for (i = 0; i < live->update->nr_data; i++) {
		datum = &live->update->data[i];
		if (kspliced_has_constant(live, datum))
			emit(window, "0x%lx\t%u\t%s\t%s\n", datum->addr,
			     datum->size, datum->target, datum->name);
	}
}

/* In lines that are not too long. */
static void original_datum(struct window *window,
			   const struct kspliced_constant *constant)
{
	u32 offset, len;

	for (offset = 0; offset < constant->datum->size; offset += len) {
		len = min_t(u32, constant->datum->size - offset, HEX_LINE);
		emit(window, "0x%lx\t%*phN\n", constant->datum->addr + offset,
		     (int)len, constant->original + offset);
	}
}

static void original_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_site *site;
	u32 i;

	if (live->stage != KSPLICED_APPLIED)
		return;
	for (i = 0; i < live->nr_sites; i++) {
		site = &live->sites[i];
		if (site->span->new_addr)
			emit(window, "0x%lx\t%*phN\n",
			     kspliced_jump_addr(site->span),
			     JMP32_INSN_SIZE, site->original);
	}
	for (i = 0; i < live->nr_constants; i++)
		original_datum(window, &live->constants[i]);
}

/* What was part of it before its module went. */
static void lost_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	u32 i;

	for (i = 0; i < update->nr_spans; i++)
		if (!kspliced_find_site(live, update->spans[i].addr))
			emit(window, "%s\t%s\n", update->spans[i].target,
			     update->spans[i].name);
	for (i = 0; i < update->nr_data; i++)
		if (!kspliced_has_constant(live, &update->data[i]))
			emit(window, "%s\t%s\n", update->data[i].target,
			     update->data[i].name);
}

static void holds_text(struct window *window, struct kspliced_live *live)
{
	const struct kspliced_hold *hold;

	list_for_each_entry(hold, &live->holds, list)
		emit(window, "%s %s %u\n", hold->name,
		     hold->required ? "required" : "optional", hold->seconds);
}

#define TEXT_FILE(name, mode)						\
static ssize_t name##_read(struct file *file, struct kobject *kobj,	\
			   BIN_CONST struct bin_attribute *attr,	\
			   char *buf, loff_t offset, size_t count)	\
{									\
	return read_text(kobj, buf, offset, count, name##_text);	\
}									\
static BIN_CONST struct bin_attribute name##_file =			\
	__BIN_ATTR(name, mode, name##_read, NULL, 0)

TEXT_FILE(conflicts, 0400);
TEXT_FILE(stacks, 0400);
TEXT_FILE(mismatch, 0400);
TEXT_FILE(probes, 0444);
TEXT_FILE(redirected, 0400);
TEXT_FILE(spans, 0400);
TEXT_FILE(data, 0400);
TEXT_FILE(original, 0400);
TEXT_FILE(lost, 0444);
TEXT_FILE(holds, 0444);

BIN_CONST struct bin_attribute *BIN_CONST kspliced_update_texts[] = {
	&conflicts_file,
	&stacks_file,
	&mismatch_file,
	&probes_file,
	&redirected_file,
	&spans_file,
	&data_file,
	&original_file,
	&lost_file,
	&holds_file,
	NULL
};

static void held_line(const struct kspliced_held *held, void *window)
{
	const struct module *mod = held->mod;

	emit(window, "%s\t%s\t0x%lx\t%zu\t0x%lx\t%zu\n", mod->name,
	     held->required ? "required" : "optional",
	     (unsigned long)mod->jump_entries,
	     mod->num_jump_entries * sizeof(*mod->jump_entries),
	     (unsigned long)mod->static_call_sites,
	     mod->num_static_call_sites * sizeof(*mod->static_call_sites));
}

static ssize_t held_read(struct file *file, struct kobject *kobj,
			 BIN_CONST struct bin_attribute *attr, char *buf,
			 loff_t offset, size_t count)
{
	struct window window = { .buf = buf, .offset = offset, .count = count };

	mutex_lock(&kspliced_lock);
	kspliced_for_held(held_line, &window);
	mutex_unlock(&kspliced_lock);
	return window.filled;
}

static BIN_CONST struct bin_attribute held_file =
	__BIN_ATTR(held, 0400, held_read, NULL, 0);

BIN_CONST struct bin_attribute *BIN_CONST kspliced_root_texts[] = {
	&held_file,
	NULL
};

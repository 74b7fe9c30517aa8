// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kspliced kernel core: it verifies, switches, reverts and reports. This
 * part loads it, and takes and releases the updates that modules register.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bsearch.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>

#include "kspliced.h"

/* Protects the list and what kspliced.h says of struct kspliced_live. */
DEFINE_MUTEX(kspliced_lock);
static LIST_HEAD(updates);

/**
 * kspliced_text_owner() - the module whose code holds an address
 * @addr: any value
 *
 * Its init code does not count. The module may go where it is not pinned and
 * preemption is enabled.
 *
 * Return: the module, or NULL.
 */
struct module *kspliced_text_owner(unsigned long addr)
{
	struct module *mod;

	preempt_disable();
	mod = static_call(kspliced_module_text_address)(addr);
	if (mod && !within_module_core(addr, mod))
		mod = NULL;
	preempt_enable();
	return mod;
}

static int compare_sites(const void *one, const void *other)
{
	unsigned long a = ((const struct kspliced_site *)one)->span->addr;
	unsigned long b = ((const struct kspliced_site *)other)->span->addr;

	return a < b ? -1 : a > b;
}

static int compare_address(const void *key, const void *element)
{
	const struct kspliced_span *span =
		((const struct kspliced_site *)element)->span;
	unsigned long addr = (unsigned long)key;

	if (addr < span->addr)
		return -1;
	return addr - span->addr >= span->size;
}

/**
 * kspliced_find_site() - the site of an update whose span holds an address
 * @live: a registered update
 * @addr: any value
 *
 * Return: the site, or NULL.
 */
struct kspliced_site *kspliced_find_site(const struct kspliced_live *live,
					 unsigned long addr)
{
	return bsearch((const void *)addr, live->sites, live->update->nr_spans,
		       sizeof(*live->sites), compare_address);
}

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
	unsigned long last = span->addr + span->size - 1;
	struct module *mod;
	const char *why = NULL;

	if (!span->size || last < span->addr)
		return "size is 0 or wraps around";
	if (!strcmp(span->target, KSPLICED_VMLINUX)) {
		if (!static_call(kspliced_core_kernel_text)(span->addr) ||
		    !static_call(kspliced_core_kernel_text)(last))
			why = "does not lie in the kernel's text";
		return why;
	}
	preempt_disable();
	mod = kspliced_text_owner(span->addr);
	if (!mod || mod != kspliced_text_owner(last))
		why = "does not lie in the text of one module";
	else if (strcmp(mod->name, span->target))
		why = "does not lie in the module that it names";
	else if (mod == THIS_MODULE)
		why = "lies in the core itself";
	preempt_enable();
	return why;
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
	return NULL;
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
	if (!update->nr_spans || update->nr_spans > KSPLICED_MAX_SPANS)
		return "it has no spans, or too many";
	if (!owns(mod, update->spans, update->nr_spans * sizeof(*update->spans)))
		return "its spans do not lie in the module";
	return NULL;
}

/*
 * Everything that the switch will rely on. What an update module passes was
 * written by a linker, not a compiler, so nothing is taken for granted.
 */
static int validate(const struct kspliced_update *update)
{
	const char *why = check_header(update);
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
	return 0;
}

/* Sort the spans by address and make their jumps. */
static int make_sites(struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	const struct kspliced_span *span, *next;
	u32 i;

	live->sites = kvcalloc(update->nr_spans, sizeof(*live->sites), GFP_KERNEL);
	if (!live->sites)
		return -ENOMEM;
	for (i = 0; i < update->nr_spans; i++) {
		live->sites[i].span = &update->spans[i];
		kspliced_make_jump(&live->sites[i]);
	}
	sort(live->sites, update->nr_spans, sizeof(*live->sites), compare_sites,
	     NULL);
	for (i = 0; i + 1 < update->nr_spans; i++) {
		span = live->sites[i].span;
		next = live->sites[i + 1].span;
		if (span->addr + span->size <= next->addr)
			continue;
		pr_err("update %s refused: spans %s and %s overlap\n",
		       update->owner->name, span->name, next->name);
		return -EINVAL;
	}
	return 0;
}

static struct kspliced_live *find_live(const struct kspliced_update *update)
{
	struct kspliced_live *live;

	list_for_each_entry(live, &updates, list)
		if (live->update == update)
			return live;
	return NULL;
}

/**
 * kspliced_register_update() - take an update; its module's init calls this
 * @update: stays valid until it is unregistered
 *
 * The update is in stage "preparing" then and has its directory in sysfs.
 * Nothing in the kernel changes.
 *
 * Return: 0, -EINVAL after one message that says what is wrong with it,
 * -EEXIST, or -ENOMEM.
 */
int kspliced_register_update(const struct kspliced_update *update)
{
	struct kspliced_live *live;
	int error;

	error = validate(update);
	if (error)
		return error;
	live = kzalloc(sizeof(*live), GFP_KERNEL);
	if (!live)
		return -ENOMEM;
	live->update = update;
	INIT_LIST_HEAD(&live->list);
	kobject_init(&live->kobj, &kspliced_ktype);

	error = make_sites(live);
	if (error)
		goto put;
	mutex_lock(&kspliced_lock);
	if (find_live(update))
		error = -EEXIST;
	else
		list_add(&live->list, &updates);
	mutex_unlock(&kspliced_lock);
	if (error)
		goto put;
	error = kspliced_sysfs_add(live);
	if (!error)
		return 0;

	mutex_lock(&kspliced_lock);
	list_del(&live->list);
	mutex_unlock(&kspliced_lock);
put:
	kobject_put(&live->kobj);
	return error;
}
EXPORT_SYMBOL_GPL(kspliced_register_update);

/**
 * kspliced_unregister_update() - release an update; its module's exit calls this
 * @update: what was registered
 *
 * Returns when no switch and no reader of its files uses it any more.
 */
void kspliced_unregister_update(const struct kspliced_update *update)
{
	struct kspliced_live *live;

	mutex_lock(&kspliced_lock);
	live = find_live(update);
	mutex_unlock(&kspliced_lock);
	if (WARN_ON_ONCE(!live))
		return;

	kspliced_retire(live);
	/*
	 * This waits for those who are writing to control and would wait for
	 * the lock, so it cannot be held here.
	 */
	kobject_del(&live->kobj);
	mutex_lock(&kspliced_lock);
	list_del(&live->list);
	mutex_unlock(&kspliced_lock);
	kobject_put(&live->kobj);
}
EXPORT_SYMBOL_GPL(kspliced_unregister_update);

static int __init kspliced_init(void)
{
	int error;

	error = kspliced_find_symbols();
	if (error)
		return error;
	return kspliced_sysfs_init();
}

static void __exit kspliced_exit(void)
{
	kspliced_sysfs_exit();
}

module_init(kspliced_init);
module_exit(kspliced_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The kspliced authors");
MODULE_DESCRIPTION("Switches running kernel code to its replacement");
MODULE_VERSION(KSPLICED_VERSION);

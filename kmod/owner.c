// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Whose is an address? The parts of modules, and what stands in them.
 */
#include "owner.h"
#include "symbols.h"

/**
 * kspliced_within_rodata() - does an address lie in the read-only data of a module?
 * @addr: any value
 * @mod: the module, which cannot go
 *
 * What is read-only from its first moment on counts.
 *
 * Return: true if it does.
 */
bool kspliced_within_rodata(unsigned long addr, const struct module *mod)
{
#ifdef KSPLICED_HAVE_MODULE_MEMORY
	return within_module_mem_type(addr, mod, MOD_RODATA);
#else
	const struct module_layout *core = &mod->core_layout;
	unsigned long offset = addr - (unsigned long)core->base;

	return offset >= core->text_size && offset < core->ro_size;
#endif
}

/**
 * kspliced_within_data() - does an address lie in the data of a module?
 * @addr: any value
 * @mod: the module, which cannot go
 *
 * All that is no code counts, but for its init part.
 *
 * Return: true if it does.
 */
bool kspliced_within_data(unsigned long addr, const struct module *mod)
{
#ifdef KSPLICED_HAVE_MODULE_MEMORY
	return within_module_core(addr, mod) &&
	       !within_module_mem_type(addr, mod, MOD_TEXT);
#else
	const struct module_layout *core = &mod->core_layout;
	unsigned long offset = addr - (unsigned long)core->base;

	return offset >= core->text_size && offset < core->size;
#endif
}

/* Whether an address lies in the code of a module, its init code aside. */
static bool within_text(unsigned long addr, const struct module *mod)
{
#ifdef KSPLICED_HAVE_MODULE_MEMORY
	return within_module_mem_type(addr, mod, MOD_TEXT);
#else
	const struct module_layout *core = &mod->core_layout;

	return addr - (unsigned long)core->base < core->text_size;
#endif
}

static __always_inline struct module *
owner_within(unsigned long addr, bool (*within)(unsigned long addr,
						const struct module *mod))
{
	struct module *mod;

	preempt_disable();
	mod = static_call(kspliced_module_address)(addr);
	if (mod && !within(addr, mod))
		mod = NULL;
	preempt_enable();
	return mod;
}

/**
 * kspliced_owner() - the module of which a part holds an address
 * @addr: any value
 * @within: tells whether the part of a module does
 *
 * The module may go where it is not pinned and preemption is enabled.
 *
 * Return: the module, or NULL.
 */
struct module *kspliced_owner(unsigned long addr,
			      bool (*within)(unsigned long addr,
					     const struct module *mod))
{
	return owner_within(addr, within);
}

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
	return owner_within(addr, within_text);
}

/**
 * kspliced_data_owner() - the module whose data hold an address
 * @addr: any value
 *
 * Read-only or not; its init data do not count. The module may go where it is
 * not pinned and preemption is enabled.
 *
 * Return: the module, or NULL.
 */
struct module *kspliced_data_owner(unsigned long addr)
{
	return owner_within(addr, kspliced_within_data);
}

/**
 * kspliced_module_size() - how much memory a module takes
 * @mod: a live module
 *
 * Its init part is freed by then and does not count.
 *
 * Return: bytes.
 */
u64 kspliced_module_size(const struct module *mod)
{
#ifdef KSPLICED_HAVE_MODULE_MEMORY
	u64 size = 0;

	for_class_mod_mem_type(type, core)
		size += mod->mem[type].size;
	return size;
#else
	return mod->core_layout.size;
#endif
}

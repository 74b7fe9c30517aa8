// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The modules that must stay in place while an update is applied.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/error-injection.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "data.h"
#include "hold.h"
#include "owner.h"
#include "pin.h"
#include "site.h"
#include "state.h"

/**
 * kspliced_unpin() - let the modules go that an update kept in place
 * @pins: of an update that is not applied, or was never
 */
void kspliced_unpin(struct kspliced_pins *pins)
{
	unsigned int i;

	for (i = 0; i < pins->nr_targets; i++)
		module_put(pins->targets[i]);
	kvfree(pins->targets);
	module_put(pins->owner);
	memset(pins, 0, sizeof(*pins));
}

/* Nobody frees it but unload, which a pin prevents, or tells kspliced_forget(). */
static bool is_there(const struct module *mod)
{
	return mod->state == MODULE_STATE_LIVE ||
	       (mod->state == MODULE_STATE_COMING && kspliced_is_held(mod));
}

/*
 * Pin the module that holds @size bytes at @addr now, as @owner tells; it may be
 * another than when we matched.
 */
static noinline bool pin_target(struct kspliced_pins *pins, const char *target,
				unsigned long addr, u32 size,
				struct module *(*owner)(unsigned long addr))
{
	struct module *mod;
	bool ok = true;

	if (!strcmp(target, KSPLICED_VMLINUX))
		return true;
	preempt_disable();
	mod = owner(addr);
	if (!mod || !is_there(mod) ||
	    strcmp(mod->name, target) || mod != owner(addr + size - 1))
		ok = false;
	else if (!kspliced_pinned(pins, mod))
		ok = try_module_get(mod);
	else
		mod = NULL;
	preempt_enable();
	if (ok && mod)
		pins->targets[pins->nr_targets++] = mod;
	return ok;
}

ALLOW_ERROR_INJECTION(pin_target, NULL);	/* false, that is */

static bool pin_targets(struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	const struct kspliced_datum *datum;
	const struct kspliced_span *span;
	u32 i;

	for (i = 0; i < update->nr_spans; i++) {
		span = live->sites[i].span;
		if (!pin_target(&live->pins, span->target, span->addr,
				span->size, kspliced_text_owner))
			return false;
	}
	for (i = 0; i < update->nr_data; i++) {
		datum = live->constants[i].datum;
		if (!pin_target(&live->pins, datum->target, datum->addr,
				datum->size, kspliced_data_owner))
			return false;
	}
	return true;
}

/**
 * kspliced_pin() - keep the modules in place that a switch to an update touches
 * @live: a registered update
 *
 * Context: under kspliced_lock.
 * Return: KSPLICED_OK, or why there can be no switch; nothing is pinned then.
 */
enum kspliced_cause kspliced_pin(struct kspliced_live *live)
{
	const struct kspliced_update *update = live->update;
	struct kspliced_pins *pins = &live->pins;
	const char *arrived;

	/* A part of it is for a module that has gone since. */
	if (live->nr_sites < update->nr_spans || live->nr_constants < update->nr_data)
		return KSPLICED_TARGET_GONE;
	/* Before its init has returned, the module loader may still free it. */
	if (live->leaving || update->owner->state != MODULE_STATE_LIVE ||
	    !try_module_get(update->owner)) {
		pr_err("update %s: its module is not live\n", update->owner->name);
		return KSPLICED_UNEXPECTED;
	}
	pins->owner = update->owner;
	pins->targets = kvcalloc(update->nr_spans + update->nr_data,
				 sizeof(*pins->targets), GFP_KERNEL);
	if (!pins->targets) {
		kspliced_unpin(pins);
		return KSPLICED_OUT_OF_MEMORY;
	}
	if (!pin_targets(live)) {
		kspliced_unpin(pins);
		return KSPLICED_TARGET_GONE;
	}
	arrived = kspliced_arrived(live);
	if (!arrived)
		return KSPLICED_OK;
	pr_err("update %s: module %s is loaded with its old code\n",
	       update->owner->name, arrived);
	kspliced_unpin(pins);
	return KSPLICED_ARRIVED;
}

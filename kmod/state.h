/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An update, and which is applied: state.c */
#ifndef KSPLICED_STATE_H
#define KSPLICED_STATE_H

#include <linux/container_of.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>

#include "kspliced_abi.h"

struct kspliced_attempt;
struct kspliced_constant;
struct kspliced_site;

enum kspliced_stage {
	KSPLICED_PREPARING,
	KSPLICED_APPLIED,
	KSPLICED_REVERSED,
};

enum kspliced_cause {
	KSPLICED_OK,
	KSPLICED_NO_MATCH,
	KSPLICED_CODE_BUSY,
	KSPLICED_PROBED,
	KSPLICED_REDIRECTED,
	KSPLICED_OUT_OF_MEMORY,
	KSPLICED_TARGET_GONE,
	KSPLICED_ARRIVED,
	KSPLICED_ALREADY,
	KSPLICED_UNEXPECTED,
};

/**
 * struct kspliced_pins - the modules that must stay while an update is applied
 * @owner: the update module itself
 * @targets: the modules that own a span or a datum, each once
 * @nr_targets: number of entries in @targets
 */
struct kspliced_pins {
	struct module *owner;
	struct module **targets;
	unsigned int nr_targets;
};

/**
 * struct kspliced_live - a registered update
 * @kobj: its directory under /sys/kernel/kspliced/updates
 * @list: entry in the list of registered updates
 * @update: what the update module passed
 * @sites: one for each span whose target is still there, sorted by address
 * @nr_sites: number of entries in @sites
 * @constants: one for each datum whose target is still there, sorted by address
 * @nr_constants: number of entries in @constants
 * @originals: room for what stood in the constants
 * @pins: held while applied
 * @holds: modules whose loads wait while it is applied (struct kspliced_hold)
 * @stage: see docs/kernel-core.md
 * @cause: of the last attempt
 * @pause_ns: of the last successful switch
 * @report: the last attempt if it failed with something to show, else NULL
 * @resident: bytes of its module, from its first successful apply on; else 0
 * @leaving: being unregistered; takes no switch that would apply it
 *
 * Everything but @kobj and @update is protected by kspliced_lock.
 */
struct kspliced_live {
	struct kobject kobj;
	struct list_head list;
	const struct kspliced_update *update;
	struct kspliced_site *sites;
	u32 nr_sites;
	struct kspliced_constant *constants;
	u32 nr_constants;
	u8 *originals;
	struct kspliced_pins pins;
	struct list_head holds;
	enum kspliced_stage stage;
	enum kspliced_cause cause;
	u64 pause_ns;
	struct kspliced_attempt *report;
	u64 resident;
	bool leaving;
};

static inline struct kspliced_live *kspliced_of_kobject(struct kobject *kobj)
{
	return container_of(kobj, struct kspliced_live, kobj);
}

extern struct mutex kspliced_lock;	/* see state.c */

struct kspliced_live *kspliced_applied(void);
void kspliced_set_applied(struct kspliced_live *live);
void kspliced_keep(struct kspliced_live *live);
void kspliced_lose(struct kspliced_live *live);
u64 kspliced_resident(void);
bool kspliced_pinned(const struct kspliced_pins *pins, const struct module *mod);

#endif /* KSPLICED_STATE_H */

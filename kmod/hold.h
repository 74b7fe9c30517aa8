/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Modules whose load waits: hold.c */
#ifndef KSPLICED_HOLD_H
#define KSPLICED_HOLD_H

#include <linux/list.h>
#include <linux/module.h>

#include "state.h"

#define KSPLICED_MAX_HOLD	600	/* seconds that a module's load waits */

/**
 * struct kspliced_hold - a module that is not loaded, and whose load is to wait
 * @list: entry in the list of an update
 * @name: of the module
 * @required: its load fails where its part does not come; else it goes on
 * @seconds: how long it waits
 */
struct kspliced_hold {
	struct list_head list;
	char name[MODULE_NAME_LEN];
	bool required;
	unsigned int seconds;
};

/**
 * struct kspliced_held - a module whose load waits
 * @list: entry in the list of all of them
 * @mod: the module, in state MODULE_STATE_COMING
 * @required: as its hold said
 * @told: a listener has read its name
 * @woken: it is to go on
 */
struct kspliced_held {
	struct list_head list;
	const struct module *mod;
	bool required;
	bool told;
	bool woken;
};

typedef void (*kspliced_visit_held_fn)(const struct kspliced_held *held, void *data);
int kspliced_hold_init(void);
void kspliced_hold_exit(void);
int kspliced_hold(struct kspliced_live *live, const char *line);
int kspliced_hold_load(struct module *mod);
void kspliced_free_holds(struct kspliced_live *live);
void kspliced_review_holds(void);
void kspliced_for_held(kspliced_visit_held_fn visit, void *data);
bool kspliced_is_held(const struct module *mod);
const char *kspliced_arrived(const struct kspliced_live *live);

#endif /* KSPLICED_HOLD_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One switch: switch.c */
#ifndef KSPLICED_SWITCH_H
#define KSPLICED_SWITCH_H

#include "state.h"

void kspliced_forget(const struct module *mod);
int kspliced_apply(struct kspliced_live *live);
int kspliced_reverse(struct kspliced_live *live);
void kspliced_retire(struct kspliced_live *live);

#endif /* KSPLICED_SWITCH_H */

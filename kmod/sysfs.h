/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /sys/kernel/kspliced: sysfs.c */
#ifndef KSPLICED_SYSFS_H
#define KSPLICED_SYSFS_H

#include <linux/kobject.h>

#include "state.h"

#define KSPLICED_VERSION	"0.1.0"

extern const struct kobj_type kspliced_ktype;

int kspliced_sysfs_init(void);
void kspliced_sysfs_exit(void);
int kspliced_sysfs_add(struct kspliced_live *live);

#endif /* KSPLICED_SYSFS_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files that may grow beyond a page: text.c */
#ifndef KSPLICED_TEXT_H
#define KSPLICED_TEXT_H

#include <linux/sysfs.h>

/* Since Linux 6.16 what describes a file is constant (Kbuild). */
#ifdef KSPLICED_HAVE_CONST_BIN_ATTRIBUTE
#define BIN_CONST	const
#else
#define BIN_CONST
#endif

extern BIN_CONST struct bin_attribute *BIN_CONST kspliced_update_texts[];
extern BIN_CONST struct bin_attribute *BIN_CONST kspliced_root_texts[];

#endif /* KSPLICED_TEXT_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose an address is: owner.c */
#ifndef KSPLICED_OWNER_H
#define KSPLICED_OWNER_H

#include <linux/module.h>

#define KSPLICED_VMLINUX	"vmlinux"

struct module *kspliced_owner(unsigned long addr,
			      bool (*within)(unsigned long addr,
					     const struct module *mod));
struct module *kspliced_text_owner(unsigned long addr);
struct module *kspliced_data_owner(unsigned long addr);
bool kspliced_within_rodata(unsigned long addr, const struct module *mod);
bool kspliced_within_data(unsigned long addr, const struct module *mod);
u64 kspliced_module_size(const struct module *mod);

#endif /* KSPLICED_OWNER_H */

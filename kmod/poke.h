/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From one text to the other: poke.c */
#ifndef KSPLICED_POKE_H
#define KSPLICED_POKE_H

#include "attempt.h"

int kspliced_poke_init(void);
void kspliced_poke_exit(void);
void kspliced_follow(struct kspliced_attempt *attempt);
void kspliced_change_text(struct kspliced_attempt *attempt);

#endif /* KSPLICED_POKE_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is inside code that would change: stack_check.c */
#ifndef KSPLICED_STACK_CHECK_H
#define KSPLICED_STACK_CHECK_H

#include "attempt.h"

void kspliced_check_self(struct kspliced_attempt *attempt);
void kspliced_check_tasks(struct kspliced_attempt *attempt);

#endif /* KSPLICED_STACK_CHECK_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is the text what it should be: verify.c */
#ifndef KSPLICED_VERIFY_H
#define KSPLICED_VERIFY_H

#include "attempt.h"

void kspliced_verify_jumps(struct kspliced_attempt *attempt);
void kspliced_verify_spans(struct kspliced_attempt *attempt);
void kspliced_keep_originals(struct kspliced_attempt *attempt);

#endif /* KSPLICED_VERIFY_H */

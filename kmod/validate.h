/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is an update what it says: validate.c */
#ifndef KSPLICED_VALIDATE_H
#define KSPLICED_VALIDATE_H

#include "kspliced_abi.h"

int kspliced_validate(const struct kspliced_update *update);

#endif /* KSPLICED_VALIDATE_H */

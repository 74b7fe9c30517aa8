/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The modules that must stay: pin.c */
#ifndef KSPLICED_PIN_H
#define KSPLICED_PIN_H

#include "state.h"

enum kspliced_cause kspliced_pin(struct kspliced_live *live);
void kspliced_unpin(struct kspliced_pins *pins);

#endif /* KSPLICED_PIN_H */

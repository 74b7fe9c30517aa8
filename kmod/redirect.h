/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Functions that something else redirects: redirect.c */
#ifndef KSPLICED_REDIRECT_H
#define KSPLICED_REDIRECT_H

#include "state.h"

typedef void (*kspliced_visit_fn)(const struct kspliced_span *span, void *data);
unsigned int kspliced_for_redirected(const struct kspliced_live *live,
				     kspliced_visit_fn visit, void *data);

#endif /* KSPLICED_REDIRECT_H */

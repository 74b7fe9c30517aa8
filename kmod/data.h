/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Constants that change in place: data.c */
#ifndef KSPLICED_DATA_H
#define KSPLICED_DATA_H

#include "attempt.h"
#include "range.h"
#include "state.h"

#define KSPLICED_MAX_DATA	4096
#define KSPLICED_MAX_DATUM	65536	/* bytes */

/**
 * struct kspliced_constant - a datum with what the core keeps of it
 * @range: where the datum is
 * @datum: the datum, in the update module's memory
 * @original: what stood there; valid while the update is applied
 * @alias: where it can be written, during a switch; else NULL
 */
struct kspliced_constant {
	struct kspliced_range range;
	const struct kspliced_datum *datum;
	u8 *original;
	u8 *alias;
};

int kspliced_make_constants(struct kspliced_live *live);
void kspliced_forget_constants(struct kspliced_live *live, const char *target);
bool kspliced_has_constant(const struct kspliced_live *live,
			   const struct kspliced_datum *datum);
int kspliced_map_data(struct kspliced_live *live);
void kspliced_unmap_data(struct kspliced_live *live);
void kspliced_verify_values(struct kspliced_attempt *attempt);
void kspliced_verify_data(struct kspliced_attempt *attempt);
void kspliced_restore_data(struct kspliced_live *live);
void kspliced_write_data(struct kspliced_live *live);
bool kspliced_is_pointer(const struct kspliced_datum *datum);

#endif /* KSPLICED_DATA_H */

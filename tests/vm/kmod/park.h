/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PARK_H
#define PARK_H

void park_wait(void);	/* sleep until the park is open */
unsigned long park_return(unsigned long value);	/* the same, and return it */
void park_nap(void);	/* sleep until somebody wakes the thread */
void park_open(void);
void park_close(void);

/* victim_value() of so much or more: an update hands a string over */
#define PARK_HAND	(1 << 20)

int park_hand(const char *name);	/* request an interrupt by that name */
void park_back(void);			/* give it back */

#endif /* PARK_H */

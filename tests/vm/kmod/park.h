/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PARK_H
#define PARK_H

void park_wait(void);	/* sleep until the park is open */
void park_nap(void);	/* sleep until somebody wakes the thread */
void park_open(void);
void park_close(void);

#endif /* PARK_H */

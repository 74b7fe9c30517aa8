// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A place for threads to sleep at, in a module of its own so that an update
 * need not depend on the module that it changes.
 */
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/wait.h>

#include "park.h"

static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool is_open;

void park_wait(void)
{
	/* Not in uninterruptible sleep: that would look like a hung task. */
	wait_event_idle(queue, READ_ONCE(is_open));
}
EXPORT_SYMBOL_GPL(park_wait);

unsigned long park_return(unsigned long value)
{
	park_wait();
	return value;
}
EXPORT_SYMBOL_GPL(park_return);

void park_nap(void)
{
	schedule_timeout_interruptible(MAX_SCHEDULE_TIMEOUT);
}
EXPORT_SYMBOL_GPL(park_nap);

void park_open(void)
{
	WRITE_ONCE(is_open, true);
	wake_up_all(&queue);
}
EXPORT_SYMBOL_GPL(park_open);

void park_close(void)
{
	WRITE_ONCE(is_open, false);
}
EXPORT_SYMBOL_GPL(park_close);

/* A line of the ISA bus that nothing of the machine has. */
#define LINE	5

static irqreturn_t handle(int line, void *unused)
{
	return IRQ_NONE;
}

int park_hand(const char *name)
{
	return request_irq(LINE, handle, 0, name, NULL);
}
EXPORT_SYMBOL_GPL(park_hand);

void park_back(void)
{
	free_irq(LINE, NULL);
}
EXPORT_SYMBOL_GPL(park_back);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A place for threads to sleep at");

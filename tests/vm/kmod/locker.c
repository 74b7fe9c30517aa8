// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Holds a mutex of the kernel, whose address the test passes, from the moment
 * that the parameter "go" is set until the park is open. Not from the start, as
 * the end of the module's own load may need the mutex.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/task.h>

#include "park.h"

static unsigned long lock;
module_param(lock, ulong, 0400);
MODULE_PARM_DESC(lock, "address of the mutex");

static bool go;
module_param(go, bool, 0600);
MODULE_PARM_DESC(go, "take it");

static struct task_struct *thread;

static int hold(void *unused)
{
	struct mutex *mutex = (struct mutex *)lock;

	while (!READ_ONCE(go))
		msleep(20);
	mutex_lock(mutex);
	park_wait();
	mutex_unlock(mutex);
	return 0;
}

static int __init locker_init(void)
{
	struct task_struct *started;

	park_close();
	started = kthread_create(hold, NULL, "locker");
	if (IS_ERR(started))
		return PTR_ERR(started);
	thread = get_task_struct(started);
	wake_up_process(thread);
	return 0;
}

static void __exit locker_exit(void)
{
	WRITE_ONCE(go, true);
	park_open();
	kthread_stop(thread);
	put_task_struct(thread);
}

module_init(locker_init);
module_exit(locker_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Holds a mutex of the kernel");

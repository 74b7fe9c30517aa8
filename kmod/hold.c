// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Modules whose load waits until an update has put its part for them in.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "hold.h"
#include "state.h"
#include "symbols.h"

/* Protected by kspliced_lock. */
static LIST_HEAD(held_modules);
static unsigned int listeners;

static bool untold;	/* next_untold() finds one; written under kspliced_lock */

static DECLARE_WAIT_QUEUE_HEAD(loaders);
static DECLARE_WAIT_QUEUE_HEAD(readers);

static struct kspliced_hold *find_hold(const struct kspliced_live *live,
				       const char *name)
{
	struct kspliced_hold *hold;

	list_for_each_entry(hold, &live->holds, list)
		if (!strcmp(hold->name, name))
			return hold;
	return NULL;
}

/* What the applied update wants of a module that it does not change yet, or NULL. */
static const struct kspliced_hold *wanted(const struct module *mod)
{
	const struct kspliced_live *live = kspliced_applied();

	if (!live || kspliced_pinned(&live->pins, mod))
		return NULL;
	return find_hold(live, mod->name);
}

static struct kspliced_held *find_held(const struct module *mod)
{
	struct kspliced_held *held;

	list_for_each_entry(held, &held_modules, list)
		if (held->mod == mod)
			return held;
	return NULL;
}

static struct kspliced_held *next_untold(void)
{
	struct kspliced_held *held;

	list_for_each_entry(held, &held_modules, list)
		if (!held->told)
			return held;
	return NULL;
}

/* Who is held, or told of, has changed. */
static void update_readers(void)
{
	WRITE_ONCE(untold, next_untold());
	if (untold)
		wake_up_interruptible(&readers);
}

/**
 * kspliced_is_held() - does the load of a module wait here?
 * @mod: a module
 *
 * Context: under kspliced_lock, which keeps the answer true.
 * Return: true if it does; none of its code has run then.
 */
bool kspliced_is_held(const struct module *mod)
{
	return find_held(mod);
}

/**
 * kspliced_arrived() - does a module run old code that an update cannot bear?
 * @live: an update whose targets are pinned
 *
 * Context: under kspliced_lock. A module that comes later finds the update applied.
 * Return: the module's name, or NULL.
 */
const char *kspliced_arrived(const struct kspliced_live *live)
{
	const struct kspliced_hold *hold;
	const struct module *mod;
	bool arrived;

	list_for_each_entry(hold, &live->holds, list) {
		if (!hold->required)
			continue;
		preempt_disable();
		mod = static_call(kspliced_find_module)(hold->name);
		arrived = mod && !kspliced_pinned(&live->pins, mod) &&
			  !kspliced_is_held(mod);
		preempt_enable();
		if (arrived)
			return hold->name;
	}
	return NULL;
}

/**
 * kspliced_hold() - have an update hold a module while it is applied
 * @live: a registered update
 * @line: "NAME optional|required SECONDS"
 *
 * What was said of the name before is forgotten.
 *
 * Return: 0, -EINVAL or -ENOMEM.
 */
int kspliced_hold(struct kspliced_live *live, const char *line)
{
	struct kspliced_hold *hold, *known;
	char kind[10];
	int error = -EINVAL;

	hold = kzalloc(sizeof(*hold), GFP_KERNEL);
	if (!hold)
		return -ENOMEM;
	if (sscanf(line, "%55s %9s %u", hold->name, kind, &hold->seconds) != 3 ||
	    !hold->seconds || hold->seconds > KSPLICED_MAX_HOLD)
		goto free;
	hold->required = !strcmp(kind, "required");
	if (!hold->required && strcmp(kind, "optional"))
		goto free;

	mutex_lock(&kspliced_lock);
	known = find_hold(live, hold->name);
	if (known)
		list_del(&known->list);
	list_add_tail(&hold->list, &live->holds);
	mutex_unlock(&kspliced_lock);
	kfree(known);
	return 0;
free:
	kfree(hold);
	return error;
}

/**
 * kspliced_free_holds() - forget what an update wants held
 * @live: an update that nobody finds any more
 */
void kspliced_free_holds(struct kspliced_live *live)
{
	struct kspliced_hold *hold, *next;

	list_for_each_entry_safe(hold, next, &live->holds, list)
		kfree(hold);
	INIT_LIST_HEAD(&live->holds);
}

/**
 * kspliced_review_holds() - let go whom nothing holds any more
 *
 * Context: under kspliced_lock, after a switch.
 */
void kspliced_review_holds(void)
{
	struct kspliced_held *held;

	list_for_each_entry(held, &held_modules, list)
		if (!wanted(held->mod))
			WRITE_ONCE(held->woken, true);
	wake_up_all(&loaders);
}

/**
 * kspliced_for_held() - visit the modules that are held
 * @visit: called with each of them
 * @data: passed to @visit
 *
 * Context: under kspliced_lock.
 */
void kspliced_for_held(kspliced_visit_held_fn visit, void *data)
{
	const struct kspliced_held *held;

	list_for_each_entry(held, &held_modules, list)
		visit(held, data);
}

/* How a wait ended: 0, or why the load fails. */
static int verdict(const struct module *mod, long left)
{
	const struct kspliced_hold *hold = wanted(mod);

	if (left < 0)
		return -EINTR;
	if (!hold)
		return 0;
	if (!hold->required) {
		pr_warn("module %s loads with its old code: its part of update %s is not in\n",
			mod->name, kspliced_applied()->update->owner->name);
		return 0;
	}
	pr_err("module %s does not load: its old code cannot run beside update %s, and its part of that is not in\n",
	       mod->name, kspliced_applied()->update->owner->name);
	return -EBUSY;
}

/*
 * Killable, and no hindrance to suspend: the loader is frozen where it waits.
 * It holds the module notifiers' lock for reading, which nobody needs who is to
 * be frozen after it but others that wait for it here or there.
 *
 * Return: as wait_event_killable_timeout().
 */
static long wait_for_loader(struct kspliced_held *held, long timeout)
{
	return ___wait_event(loaders,
			     ___wait_cond_timeout(READ_ONCE(held->woken)),
			     (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE), 0, timeout,
			     __ret = schedule_timeout(__ret));
}

/**
 * kspliced_hold_load() - let the load of a module wait if the applied update wants it
 * @mod: a module in state MODULE_STATE_COMING
 *
 * Return: 0, or the error number with which the load fails.
 */
int kspliced_hold_load(struct module *mod)
{
	struct kspliced_held held = { .mod = mod };
	const struct kspliced_hold *hold;
	long left = 0;
	int error;

	mutex_lock(&kspliced_lock);
	hold = wanted(mod);
	if (!hold || (!hold->required && !listeners)) {
		mutex_unlock(&kspliced_lock);
		return 0;
	}
	held.required = hold->required;
	left = hold->seconds * HZ;
	list_add_tail(&held.list, &held_modules);
	update_readers();
	mutex_unlock(&kspliced_lock);

	left = wait_for_loader(&held, left);

	mutex_lock(&kspliced_lock);
	list_del(&held.list);
	update_readers();
	error = verdict(mod, left);
	mutex_unlock(&kspliced_lock);
	return error;
}

static int listener_open(struct inode *inode, struct file *file)
{
	mutex_lock(&kspliced_lock);
	listeners++;
	mutex_unlock(&kspliced_lock);
	return nonseekable_open(inode, file);
}

/* Who is held for the sake of a listener only need not wait for its timeout. */
static int listener_release(struct inode *inode, struct file *file)
{
	struct kspliced_held *held;

	mutex_lock(&kspliced_lock);
	listeners--;
	list_for_each_entry(held, &held_modules, list) {
		if (listeners)
			break;
		held->told = false;
		if (!held->required)
			WRITE_ONCE(held->woken, true);
	}
	update_readers();
	mutex_unlock(&kspliced_lock);
	wake_up_all(&loaders);
	return 0;
}

/* The name of one module that no read has told of yet, and a newline. */
static ssize_t listener_read(struct file *file, char __user *to, size_t count,
			     loff_t *offset)
{
	char line[MODULE_NAME_LEN + 1];
	struct kspliced_held *held;
	int length, error;

	for (;;) {
		mutex_lock(&kspliced_lock);
		held = next_untold();
		if (held)
			break;
		mutex_unlock(&kspliced_lock);
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		error = wait_event_interruptible(readers, READ_ONCE(untold));
		if (error)
			return error;
	}
	length = scnprintf(line, sizeof(line), "%s\n", held->mod->name);
	held->told = count >= length;
	update_readers();
	mutex_unlock(&kspliced_lock);
	if (count < length)
		return -EINVAL;
	return copy_to_user(to, line, length) ? -EFAULT : length;
}

/* The name of a module that is to go on, whether its part is in or not. */
static ssize_t listener_write(struct file *file, const char __user *from,
			      size_t count, loff_t *offset)
{
	char name[MODULE_NAME_LEN + 1] = "";
	struct kspliced_held *held;
	ssize_t result = -ESRCH;

	if (count >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, from, count))
		return -EFAULT;
	mutex_lock(&kspliced_lock);
	list_for_each_entry(held, &held_modules, list)
		if (sysfs_streq(name, held->mod->name)) {
			WRITE_ONCE(held->woken, true);
			result = count;
		}
	mutex_unlock(&kspliced_lock);
	wake_up_all(&loaders);
	return result;
}

static __poll_t listener_poll(struct file *file, poll_table *table)
{
	poll_wait(file, &readers, table);
	return EPOLLOUT | EPOLLWRNORM | (READ_ONCE(untold) ? EPOLLIN | EPOLLRDNORM : 0);
}

static const struct file_operations listener_operations = {
	.owner = THIS_MODULE,
	.open = listener_open,
	.release = listener_release,
	.read = listener_read,
	.write = listener_write,
	.poll = listener_poll,
};

static struct miscdevice listener = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kspliced",
	.fops = &listener_operations,
	.mode = 0600,
};

/**
 * kspliced_hold_init() - make /dev/kspliced
 *
 * Return: 0 or a negative error number.
 */
int __init kspliced_hold_init(void)
{
	return misc_register(&listener);
}

/**
 * kspliced_hold_exit() - undo kspliced_hold_init()
 *
 * No update is registered any more, so nobody is held for long.
 */
void kspliced_hold_exit(void)
{
	misc_deregister(&listener);
}

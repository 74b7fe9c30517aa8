// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Code to be replaced. /proc/victim gives victim_value(), or what the hook of
 * victim_hooks gives if there is one; /proc/victim_table the constants of
 * victim_table. Writing "hook" to /proc/victim takes the hook away, or puts it
 * back. At "hand" an update hands a string to the kernel, until "back" is written.
 * "hidden", with the addresses of return_to_handler() and ftrace_return_to_handler(),
 * is as "sleep", where those two were between the thread and victim_sleeper().
 * Writing "sleep", "nap" or "deep" to /proc/victim puts a thread to sleep
 * inside victim_sleeper() or victim_deep() until "wake" is written; out of a nap
 * it wakes at once. A thread that is put to sleep while an update is applied
 * sleeps in its replacement. "last" and "last elsewhere" are as "sleep", the other
 * not inside victim_sleeper(), once the thread has left the list of threads: the
 * parameter "unlisted" tells its id.
 */
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/error-injection.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/pipe_fs_i.h>
#include <linux/proc_fs.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "park.h"

static struct task_struct *thread;

/*
 * Calls park_wait() from code that the unwinder knows nothing of, as objtool
 * makes no unwind data for it.
 */
asm(".pushsection .text\n"
    ".type victim_opaque, @function\n"
    "victim_opaque:\n"
    "	sub	$8, %rsp\n"
    "	call	park_wait\n"
    "	add	$8, %rsp\n"
    "	jmp	__x86_return_thunk\n"
    ".size victim_opaque, . - victim_opaque\n"
    ".popsection");
void victim_opaque(void);
STACK_FRAME_NON_STANDARD(victim_opaque);

/*
 * Sleeps as a thread does that return_to_handler() has asked where to return to:
 * its return address is the one behind that call, in @trampoline. That goes on
 * to the label, which is what it is told. The real one is where nobody finds it.
 */
asm(".pushsection .text\n"
    ".type victim_hidden, @function\n"
    "victim_hidden:\n"
    "	notq	(%rsp)\n"
    "	push	%rbp\n"
    "	mov	%rsp, %rbp\n"
    "	sub	$256, %rsp\n"
    "	push	%rdi\n"
    "	lea	1f(%rip), %rdi\n"
    "	jmp	park_return\n"
    "1:	mov	%rbp, %rsp\n"
    "	pop	%rbp\n"
    "	notq	(%rsp)\n"
    "	jmp	__x86_return_thunk\n"
    ".size victim_hidden, . - victim_hidden\n"
    ".popsection");
void victim_hidden(unsigned long trampoline);
STACK_FRAME_NON_STANDARD(victim_hidden);

const int victim_table[4] = { 10, 11, 12, 13 };

struct victim_hooks {
	const char *name;
	int (*hook)(int number);
} victim_hooks = {
	.name = "victim",
};

static noinline int victim_value(int number)
{
	return 1000 + number;
}

ALLOW_ERROR_INJECTION(victim_value, ERRNO);

enum { SLEEP, DEEP, NAP, HIDDEN, LAST, ELSEWHERE };

static unsigned long trampoline;

static noinline int victim_sleeper(long how)
{
	if (how == NAP)
		park_nap();
	else if (how == HIDDEN)
		victim_hidden(trampoline);
	else
		park_wait();
	return 1;
}

static noinline int victim_deep(void)
{
	victim_opaque();
	return 1;
}

static void release_last(struct pipe_inode_info *pipe, struct pipe_buffer *buffer)
{
	if (buffer->private == LAST)
		victim_sleeper(SLEEP);
	else
		park_wait();
}

static const struct pipe_buf_operations last = { .release = release_last };

/* What a thread has for splice() goes in do_exit(), after exit_notify(). */
static int end(long how)
{
	struct pipe_inode_info *pipe = kzalloc(sizeof(*pipe), GFP_KERNEL);
	struct pipe_buffer *buffer = kzalloc(sizeof(*buffer), GFP_KERNEL);

	if (!pipe || !buffer) {
		kfree(pipe);
		kfree(buffer);
		return -ENOMEM;
	}
	buffer->ops = &last;
	buffer->private = how;
	pipe->bufs = buffer;
	pipe->ring_size = 1;
	pipe->user = get_current_user();
	current->splice_pipe = pipe;
	return 0;
}

static int get_unlisted(char *text, const struct kernel_param *kp)
{
	bool asleep = thread && !pid_alive(thread) &&
		      READ_ONCE(thread->__state) == TASK_IDLE;

	return sysfs_emit(text, "%d\n", asleep ? thread->pid : 0);
}

static const struct kernel_param_ops unlisted_ops = { .get = get_unlisted };
module_param_cb(unlisted, &unlisted_ops, NULL, 0400);
MODULE_PARM_DESC(unlisted, "id of a thread that sleeps and is not in the list, or 0");

static int sleep_thread(void *data)
{
	long how = (long)data;

	if (how == LAST || how == ELSEWHERE)
		return end(how);
	pr_info("victim: slept, %d\n",
		how == DEEP ? victim_deep() : victim_sleeper(how));
	return 0;
}

static int start(long how)
{
	struct task_struct *started;

	park_close();
	started = kthread_create(sleep_thread, (void *)how, "vic tim\\%ld", how);
	if (IS_ERR(started))
		return PTR_ERR(started);
	thread = get_task_struct(started);
	wake_up_process(thread);
	return 0;
}

/* The address behind the call of @asked in the code at @code */
static unsigned long behind_call(const u8 *code, unsigned long asked)
{
	s32 displacement;
	int i;

	for (i = 0; i < 64; i++) {
		memcpy(&displacement, code + i + 1, sizeof(displacement));
		if (code[i] == 0xe8 && (unsigned long)code + i + 5 + displacement == asked)
			return (unsigned long)code + i + 5;
	}
	return 0;
}

static int hide(const char *word)
{
	unsigned long code, asked;

	if (sscanf(word, "hidden %lu %lu", &code, &asked) != 2)
		return -EINVAL;
	trampoline = behind_call((const u8 *)code, asked);
	return trampoline ? start(HIDDEN) : -ENOENT;
}

static int stop(void)
{
	if (!thread)
		return 0;
	park_open();
	kthread_stop(thread);
	/* One that has ended may still be in here. */
	while (READ_ONCE(thread->__state) != TASK_DEAD)
		msleep(20);
	put_task_struct(thread);
	thread = NULL;
	return 0;
}

static int back(void)
{
	park_back();
	return 0;
}

static int swap_hook(void)
{
	static int (*other)(int number);

	WRITE_ONCE(victim_hooks.hook, xchg(&other, victim_hooks.hook));
	return 0;
}

static int show(struct seq_file *file, void *unused)
{
	int (*hook)(int number) = READ_ONCE(victim_hooks.hook);

	/* Its address is not taken: its start is that of a plain function. */
	seq_printf(file, "%d\n",
		   hook ? hook(file->index) : victim_value(file->index));
	return 0;
}

static int show_table(struct seq_file *file, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(victim_table); i++)
		seq_printf(file, "%d\n", READ_ONCE(victim_table[i]));
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static ssize_t write(struct file *file, const char __user *from, size_t count,
		     loff_t *offset)
{
	char word[64] = "";
	int error = -EINVAL;

	if (count >= sizeof(word) || copy_from_user(word, from, count))
		return -EFAULT;
	if (sysfs_streq(word, "wake"))
		error = stop();
	else if (sysfs_streq(word, "hook"))
		error = swap_hook();
	else if (sysfs_streq(word, "hand"))
		error = min(victim_value(count * PARK_HAND), 0);
	else if (sysfs_streq(word, "back"))
		error = back();
	else if (!thread && sysfs_streq(word, "sleep"))
		error = start(SLEEP);
	else if (!thread && sysfs_streq(word, "deep"))
		error = start(DEEP);
	else if (!thread && !strncmp(word, "hidden", 6))
		error = hide(word);
	else if (!thread && sysfs_streq(word, "nap"))
		error = start(NAP);
	else if (!thread && sysfs_streq(word, "last"))
		error = start(LAST);
	else if (!thread && sysfs_streq(word, "last elsewhere"))
		error = start(ELSEWHERE);
	return error ?: count;
}

static const struct proc_ops operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_write = write,
	.proc_release = single_release,
};

static int __init victim_init(void)
{
	if (!proc_create("victim", 0600, NULL, &operations))
		return -ENOMEM;
	if (proc_create_single("victim_table", 0400, NULL, show_table))
		return 0;
	remove_proc_entry("victim", NULL);
	return -ENOMEM;
}

static void __exit victim_exit(void)
{
	stop();
	remove_proc_entry("victim_table", NULL);
	remove_proc_entry("victim", NULL);
}

module_init(victim_init);
module_exit(victim_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Code to be replaced");

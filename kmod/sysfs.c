// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /sys/kernel/kspliced: the contract with user space, docs/kernel-core.md. Its
 * long files are made in text.c.
 */
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "attempt.h"
#include "hold.h"
#include "state.h"
#include "switch.h"
#include "sysfs.h"
#include "text.h"

#define HOLD		"hold "	/* the word of control that has operands */

static struct kobject *root;
static struct kobject *updates_dir;

static const char * const stage_names[] = {
	[KSPLICED_PREPARING] = "preparing",
	[KSPLICED_APPLIED] = "applied",
	[KSPLICED_REVERSED] = "reversed",
};

static const char * const cause_names[] = {
	[KSPLICED_OK] = "ok",
	[KSPLICED_NO_MATCH] = "no_match",
	[KSPLICED_CODE_BUSY] = "code_busy",
	[KSPLICED_PROBED] = "probed",
	[KSPLICED_REDIRECTED] = "redirected",
	[KSPLICED_OUT_OF_MEMORY] = "out_of_memory",
	[KSPLICED_TARGET_GONE] = "target_gone",
	[KSPLICED_ARRIVED] = "arrived",
	[KSPLICED_ALREADY] = "already",
	[KSPLICED_UNEXPECTED] = "unexpected",
};

static ssize_t stage_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	enum kspliced_stage stage = READ_ONCE(kspliced_of_kobject(kobj)->stage);

	return sysfs_emit(buf, "%s\n", stage_names[stage]);
}

static ssize_t abort_cause_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	enum kspliced_cause cause = READ_ONCE(kspliced_of_kobject(kobj)->cause);

	return sysfs_emit(buf, "%s\n", cause_names[cause]);
}

static ssize_t pause_ns_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(kspliced_of_kobject(kobj)->pause_ns));
}

/* Of one update, or of all. */
static ssize_t resident_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	u64 size;

	mutex_lock(&kspliced_lock);
	size = kobj == root ? kspliced_resident() : kspliced_of_kobject(kobj)->resident;
	mutex_unlock(&kspliced_lock);
	return sysfs_emit(buf, "%llu\n", size);
}

static ssize_t control_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	int error = -EINVAL;

	if (sysfs_streq(buf, "apply"))
		error = kspliced_apply(kspliced_of_kobject(kobj));
	else if (sysfs_streq(buf, "reverse"))
		error = kspliced_reverse(kspliced_of_kobject(kobj));
	else if (sysfs_streq(buf, "nudge"))
		error = kspliced_nudge(kspliced_of_kobject(kobj));
	else if (!strncmp(buf, HOLD, strlen(HOLD)))
		error = kspliced_hold(kspliced_of_kobject(kobj), buf + strlen(HOLD));
	return error ?: count;
}

static struct kobj_attribute stage_attr = __ATTR_RO(stage);
static struct kobj_attribute abort_cause_attr = __ATTR_RO(abort_cause);
static struct kobj_attribute pause_ns_attr = __ATTR_RO(pause_ns);
static struct kobj_attribute resident_attr = __ATTR_RO(resident);
static struct kobj_attribute control_attr = __ATTR(control, 0200, NULL, control_store);

static struct attribute *update_attrs[] = {
	&stage_attr.attr,
	&abort_cause_attr.attr,
	&pause_ns_attr.attr,
	&resident_attr.attr,
	&control_attr.attr,
	NULL
};

static const struct attribute_group update_group = {
	.attrs = update_attrs,
	.bin_attrs = kspliced_update_texts,
};

static const struct attribute_group *update_groups[] = { &update_group, NULL };

static void release_live(struct kobject *kobj)
{
	struct kspliced_live *live = kspliced_of_kobject(kobj);

	kspliced_free_holds(live);
	kspliced_attempt_free(live->report);
	kvfree(live->originals);
	kvfree(live->constants);
	kvfree(live->sites);
	kfree(live);
}

const struct kobj_type kspliced_ktype = {
	.release = release_live,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = update_groups,
};

/**
 * kspliced_sysfs_add() - make the directory of an update
 * @live: its kobject is initialised
 *
 * Return: 0 or a negative error number; the kobject is to be put then.
 */
int kspliced_sysfs_add(struct kspliced_live *live)
{
	return kobject_add(&live->kobj, updates_dir, "%s",
			   live->update->owner->name);
}

static ssize_t abi_show(struct kobject *kobj, struct kobj_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "%u\n", KSPLICED_ABI);
}

static ssize_t version_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%s\n", KSPLICED_VERSION);
}

/*
 * The linker sorts a module's exports by name and keeps their CRCs in the same
 * order: ours are the two below, so no table of names is needed, which newer
 * kernels hide.
 */
static ssize_t register_crc_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
#ifdef CONFIG_MODVERSIONS
#ifdef KSPLICED_HAVE_GPL_CRCS
	const typeof(*THIS_MODULE->gpl_crcs) *crcs = THIS_MODULE->gpl_crcs;
	unsigned int nr = THIS_MODULE->num_gpl_syms;
#else
	const u32 *crcs = THIS_MODULE->crcs;
	unsigned int nr = THIS_MODULE->num_syms;
#endif

	if (nr == 2 && crcs)
		return sysfs_emit(buf,
				  "kspliced_register_update 0x%08x\nkspliced_unregister_update 0x%08x\n",
				  (u32)crcs[0], (u32)crcs[1]);
#endif
	return 0;
}

static struct kobj_attribute abi_attr = __ATTR_RO(abi);
static struct kobj_attribute version_attr = __ATTR_RO(version);
static struct kobj_attribute register_crc_attr = __ATTR_RO(register_crc);

static struct attribute *root_attrs[] = {
	&abi_attr.attr,
	&version_attr.attr,
	&register_crc_attr.attr,
	&resident_attr.attr,
	NULL
};

static const struct attribute_group root_group = {
	.attrs = root_attrs,
	.bin_attrs = kspliced_root_texts,
};

/**
 * kspliced_sysfs_init() - make /sys/kernel/kspliced
 *
 * Return: 0 or a negative error number.
 */
int __init kspliced_sysfs_init(void)
{
	int error = -ENOMEM;

	root = kobject_create_and_add("kspliced", kernel_kobj);
	if (!root)
		return error;
	updates_dir = kobject_create_and_add("updates", root);
	if (!updates_dir)
		goto put;
	error = sysfs_create_group(root, &root_group);
	if (!error)
		return 0;
	kobject_put(updates_dir);
put:
	kobject_put(root);
	return error;
}

/**
 * kspliced_sysfs_exit() - remove /sys/kernel/kspliced
 */
void kspliced_sysfs_exit(void)
{
	kobject_put(updates_dir);
	kobject_put(root);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contract between the kspliced core and the update modules that the
 * builder emits and the linker completes. Every structure is laid out by hand
 * in 64-bit words so that user space can write it byte for byte
 * (kspliced/build/emit.py does); a change here raises KSPLICED_ABI.
 */
#ifndef KSPLICED_ABI_H
#define KSPLICED_ABI_H

#include <linux/types.h>

#define KSPLICED_ABI 2

struct module;

/**
 * struct kspliced_span - one range of the running kernel's code
 * @addr: run-time virtual address of the first byte of the old code
 * @new_addr: entry of the replacement, or 0 when the range gets no jump of its
 *            own (a .cold part): it is then only verified and kept off stacks
 * @expect: @size bytes, what must stand at @addr before an update is applied
 * @mask: @size bytes, 0xff where @expect must hold and 0x00 at sites that the
 *        kernel itself may rewrite at any moment (fentry slot, jump labels,
 *        static calls)
 * @name: symbol name, for reports
 * @target: "vmlinux" or the name of the module that owns @addr
 * @size: bytes
 * @jump_offset: where in the old code the 5-byte jump goes, behind endbr64 and
 *               the fentry slot; all five mask bytes are 0xff
 */
struct kspliced_span {
	unsigned long addr;
	unsigned long new_addr;
	const u8 *expect;
	const u8 *mask;
	const char *name;
	const char *target;
	u32 size;
	u32 jump_offset;
};

/**
 * struct kspliced_datum - data of the running kernel that change in place
 * @addr: run-time virtual address, in the read-only data of its target; a
 *        pointer by itself may lie in the other data, too
 * @expect: @size bytes, what must stand at @addr before an update is applied
 * @value: @size bytes, what stands there while it is
 * @name: symbol name, for reports
 * @target: "vmlinux" or the name of the module that owns @addr
 * @size: bytes
 * @reserved: 0
 */
struct kspliced_datum {
	unsigned long addr;
	const u8 *expect;
	const u8 *value;
	const char *name;
	const char *target;
	u32 size;
	u32 reserved;
};

/**
 * struct kspliced_update - one switch's worth
 * @abi: KSPLICED_ABI of the builder
 * @nr_spans: number of entries in @spans
 * @spans: what is verified and replaced
 * @data: what is verified and written
 * @owner: the update module
 * @nr_data: number of entries in @data
 * @reserved: 0
 *
 * The name of the update is the name of @owner.
 */
struct kspliced_update {
	u32 abi;
	u32 nr_spans;
	const struct kspliced_span *spans;
	const struct kspliced_datum *data;
	struct module *owner;
	u32 nr_data;
	u32 reserved;
};

/*
 * Called from the update module's init; puts the update into stage
 * "preparing" and makes its directory in /sys/kernel/kspliced/updates/.
 */
int kspliced_register_update(const struct kspliced_update *update);

/* Called from the update module's exit; the core pins it while applied. */
void kspliced_unregister_update(const struct kspliced_update *update);

#endif /* KSPLICED_ABI_H */

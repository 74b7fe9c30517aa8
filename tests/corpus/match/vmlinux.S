/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What rewritten code leads to. */
	.macro	function name:vararg
	.globl	\name
	.type	\name, @function
\name:	.skip	16, 0xcc
	.size	\name, 16
	.endm

	.text
	function __fentry__
	function ftrace_caller
	function ftrace_regs_caller
	function __x86_return_thunk
	function srso_return_thunk
	function __x86_indirect_thunk_rax
	function __x86_indirect_thunk_r9
	function __SCT__thing
	function thing_now
	function pv_now
	function old_way
	function new_way
	function stranger
	.balign	32
	.skip	16, 0x90
	function unthunked
	.skip	7, 0x90
depth:	sarq	$5, %gs:per_cpu_depth(%rip)
	.globl	thunked
	.type	thunked, @function
thunked: .skip	16, 0xcc
	.size	thunked, 16
	.balign	64
	.globl	its_page
its_page: .skip	32, 0xcc
	.byte	0x41, 0xff, 0xe1, 0xcc
	.byte	0xff, 0xe0, 0xcc

	.data
	.globl	__SCK__thing, pv_ops
__SCK__thing: .quad thing_now, 0
pv_ops:	.quad	stranger, stranger, pv_now, stranger
	.globl	pointer, shift, per_cpu_depth
pointer: .quad	0x1122334455667788
shift:	.long	12, 0
per_cpu_depth: .quad 0
	.section .note.GNU-stack, "", @progbits

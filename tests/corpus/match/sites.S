/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One function with each place that the kernel rewrites, as objtool and the kernel's macros
 * leave it, and nothing else. */
	.macro	table name, flags="a"
	.pushsection \name, "\flags", @progbits
	.endm

	.section .text.patched, "ax", @progbits
	.globl	patched
	.type	patched, @function
patched:
ftrace:	call	__fentry__
	table	__mcount_loc
	.quad	ftrace
	.popsection
lock:	lock incl (%rdi)
	table	.smp_locks
	.long	lock - .
	.popsection
label5:	.byte	0x0f, 0x1f, 0x44, 0x00, 0x00
	table	__jump_table, "aw"
	.balign	8
	.long	label5 - ., away - .
	.quad	key - .
	.popsection
label2:	jmp	away
	table	__jump_table, "aw"
	.long	label2 - ., away - .
	.quad	key + 2 - .
	.popsection
scall:	call	__SCT__thing
	table	.static_call_sites, "aw"
	.long	scall - ., __SCK__thing - .
	.popsection
retp:	.byte	0x2e
	call	__x86_indirect_thunk_r9
	table	.retpoline_sites
	.long	retp - .
	.popsection
retp5:	call	__x86_indirect_thunk_rax
	table	.retpoline_sites
	.long	retp5 - .
	.popsection
alt:	call	old_way
	.skip	3, 0x90
	table	.altinstr_replacement, "ax"
alt1:	call	new_way
	.popsection
	table	.altinstructions
	.long	alt - ., alt1 - .
	.word	3*32+1
	.byte	8, 5
	.popsection
smap:	.skip	3, 0x90
	table	.altinstr_replacement, "ax"
smap1:	.byte	0x0f, 0x01, 0xcb
	.popsection
	table	.altinstructions
	.long	smap - ., smap1 - .
	.word	9*32+20
	.byte	3, 3
	.popsection
ajmp:	.skip	5, 0x90
	table	.altinstr_replacement, "ax"
ajmp1:	jmp	away
	.popsection
	table	.altinstructions
	.long	ajmp - ., ajmp1 - .
	.word	9*32+21
	.byte	5, 5
	.popsection
para:	call	*pv_ops + 16
	table	.parainstructions
	.balign	8
	.quad	para
	.byte	2, 7
	.balign	8
	.popsection
	xorl	%eax, %eax
away:	movq	$key, %rdi
ret:	jmp	__x86_return_thunk
	table	.return_sites
	.long	ret - .
	.popsection
	int3
	.size	patched, . - patched

	.section .text.tail, "ax", @progbits
	.globl	tail
	.type	tail, @function
tail:
stail:	jmp	__SCT__thing
	table	.static_call_sites, "aw"
	.long	stail - ., __SCK__thing + 1 - .
	.popsection
	.size	tail, . - tail

	.section .text.keyed, "ax", @progbits
	.globl	keyed
	.type	keyed, @function
keyed:
kl:	jmp	1f
	table	__jump_table, "aw"
	.long	kl - ., 1f - .
	.quad	hidden_key + 8 - .
	.popsection
	nop
1:	movl	$1, %eax
	ret
	.size	keyed, . - keyed

	.section .data.key, "aw", @progbits
	.balign	8
	.type	key, @object
key:	.quad	0, 0
	.size	key, 16
	.section .data.hidden_key, "aw", @progbits
	.balign	8
	.type	hidden_key, @object
hidden_key: .quad 0, 0, 0
	.size	hidden_key, 24
	.section .note.GNU-stack, "", @progbits

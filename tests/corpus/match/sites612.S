/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What Linux 6.12 rewrites otherwise than 6.1, as its macros and objtool leave it. */
	.macro	table name, flags="a"
	.pushsection \name, "\flags", @progbits
	.endm
	.macro	alternative from, to, flags, size, length
	table	.altinstructions
	.long	\from - ., \to - .
	.word	3*32+21, \flags
	.byte	\size, \length
	.popsection
	.endm

	.section .text.patched, "ax", @progbits
	.skip	16, 0x90
	.globl	patched
	.type	patched, @function
patched:
endbr:	endbr64
	table	.ibt_endbr_seal
	.long	endbr - .
	.popsection
call:	call	thunked
	table	.call_sites
	.long	call - .
	.popsection
call2:	call	unthunked
	table	.call_sites
	.long	call2 - .
	.popsection
para:	call	*pv_ops + 16(%rip)
	table	.altinstr_replacement, "ax"
para1:	call	BUG_func
	.popsection
	alternative para, para1, 2, 6, 5
alt:	.skip	14, 0x90
	table	.altinstr_replacement, "ax"
alt1:	xorl	%ecx, %ecx
	.popsection
	alternative alt, alt1, 0, 14, 2
ajmp:	.skip	5, 0x90
	table	.altinstr_replacement, "ax"
ajmp1:	jmp	away
	.popsection
	alternative ajmp, ajmp1, 0, 5, 5
	movabsq	$0x0123456789abcdef, %rax
rptr:	table	runtime_ptr_pointer
	.long	rptr - 8 - .
	.popsection
	shrl	$12, %eax
rshift:	table	runtime_shift_shift
	.long	rshift - 1 - .
	.popsection
	.skip	16, 0x90
away:	ret
	.size	patched, . - patched
	.section .note.GNU-stack, "", @progbits

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hundred functions, bench_00() to bench_99(). Called with 0 they return at once,
 * who they are plus VERSION; with anything else they do something of the size of an
 * ordinary function of the kernel. The update and the live patch replace the first
 * of them with the same ones of another VERSION.
 */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include <linux/bitops.h>
#include <linux/compiler.h>

#define NR_FUNCTIONS	100

#define TEN(each, tens)							\
	each(tens##0) each(tens##1) each(tens##2) each(tens##3)		\
	each(tens##4) each(tens##5) each(tens##6) each(tens##7)		\
	each(tens##8) each(tens##9)
#define HUNDRED(each)							\
	TEN(each, 0) TEN(each, 1) TEN(each, 2) TEN(each, 3)		\
	TEN(each, 4) TEN(each, 5) TEN(each, 6) TEN(each, 7)		\
	TEN(each, 8) TEN(each, 9)

#define ROUND(number)	((number) = rol32((number) ^ 0x9e3779b9, 7) * 0x85ebca6b + VERSION)

static __always_inline unsigned int work(unsigned int number, unsigned int who)
{
	if (likely(!number))
		return VERSION + who;
	ROUND(number);
	ROUND(number);
	ROUND(number);
	ROUND(number);
	ROUND(number);
	ROUND(number);
	ROUND(number);
	ROUND(number);
	return number + who;
}

/* 1##n, as 08 is no number in C */
#define DEFINE(n)							\
static noinline unsigned int PREFIX(n)(unsigned int number)		\
{									\
	return work(number, 1##n - 100);				\
}

HUNDRED(DEFINE)

#endif /* FUNCTIONS_H */

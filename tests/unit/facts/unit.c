// SPDX-License-Identifier: GPL-2.0-or-later
struct ops { int (*open)(struct foo *); };
struct foo { int refs; unsigned flag : 2; struct foo *next; const struct ops *ops; struct { int t; } in; };
extern int check(int), counter;
static int g(struct foo *a) { return a->flag == 1; }
int f(struct foo *a, int k)
{
	static int once;
	struct { int t; } *u = (void *)a;
	int r = check(k);
	if (__builtin_expect(r < 0, 0))
		return r;
	a->in.t = once++ + u->t;
	asm("mov %1, %0" : "=r" (r) : "m" (a->refs));
	switch (a->ops->open(a)) { case 1: counter = r; break; case 3 ... 5: return -22; }
	return k ? g(a) : a->refs;
}

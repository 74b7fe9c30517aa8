// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What turns replacement code into a module: init, exit, module information.
 * The builder compiles it with the kernel's own flags for each update; it is
 * merged with the update's code and tables, and perhaps renamed, when the update
 * is linked. modpost is not involved.
 *
 * KSPLICED_LAYOUT_CRC: CRC of module_layout, from Module.symvers
 */
#define INCLUDE_VERMAGIC
#include <linux/compiler.h>
#include <linux/module.h>
#include <linux/vermagic.h>

struct kspliced_update;

extern const struct kspliced_update kspliced_update;
int kspliced_register_update(const struct kspliced_update *update);
void kspliced_unregister_update(const struct kspliced_update *update);

static int __init update_init(void)
{
	return kspliced_register_update(&kspliced_update);
}
module_init(update_init);

static void __exit update_exit(void)
{
	kspliced_unregister_update(&kspliced_update);
}
module_exit(update_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kspliced hot update");
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(depends, "kspliced");
#ifdef CONFIG_RETPOLINE
MODULE_INFO(retpoline, "Y");
#endif

__visible struct module __this_module
__section(".gnu.linkonce.this_module") = {
	.name = KBUILD_MODNAME,
	.init = init_module,
#ifdef CONFIG_MODULE_UNLOAD
	.exit = cleanup_module,
#endif
	.arch = MODULE_ARCH_INIT,
};

#ifdef CONFIG_MODVERSIONS
/* The linker fills in the CRCs of the core that is loaded. */
static const struct modversion_info versions[]
__used __section("__versions") = {
	{ KSPLICED_LAYOUT_CRC, "module_layout" },
	{ 0, "kspliced_register_update" },
	{ 0, "kspliced_unregister_update" },
};
#endif

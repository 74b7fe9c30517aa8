# SPDX-License-Identifier: GPL-2.0-or-later
#
# Print what one directory's Kbuild file builds in this configuration:
#   DIR y OBJECTS...             built in, or in lib.a, of which the linker takes what it needs
#   DIR m OBJECTS...             parts of modules
#   DIR multi MODULE OBJECTS...  a module made of several objects
#   DIR down DIRECTORIES...      where Kbuild descends

src := $(obj)

-include include/config/auto.conf
include $(srctree)/scripts/Kbuild.include
-include $(srctree)/scripts/Makefile.compiler

kspliced-dir := $(srctree)/$(obj)
include $(or $(wildcard $(kspliced-dir)/Kbuild),$(kspliced-dir)/Makefile)

kspliced-down := $(patsubst %/,$(obj)/%,$(filter %/,$(obj-y) $(obj-m)))

include $(srctree)/scripts/Makefile.lib

kspliced-parts = $(addprefix $(obj)/,$(foreach s,-objs -y -m,$($(patsubst $(obj)/%.o,%,$(1))$(s))))

.DEFAULT_GOAL := kspliced-print
.PHONY: kspliced-print
kspliced-print:
	@echo $(obj) y $(real-obj-y) $(lib-y) $(filter %.o,$(extra-y))
	@echo $(obj) m $(real-obj-m)
	@echo $(obj) down $(kspliced-down)
	@$(foreach m,$(multi-obj-m),echo $(obj) multi $(m) $(call kspliced-parts,$(m)) &&) :

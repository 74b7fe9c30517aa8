# SPDX-License-Identifier: GPL-2.0-or-later
#
# Run in an object tree: the kernel's own top Makefile exports the flags, and
# scripts/Makefile.build compiles single objects with them. Nothing is
# "prepared": the headers package ships what preparing would make.
#
#   units            a file: KSPLICED_UNITS, objects as DIRECTORY:OBJECT
#   directories      a file: KSPLICED_DIRS, which are to be listed; one that is no Kbuild
#                    directory by itself (another one includes its Makefile) is said to have
#                    failed

include $(abs_srctree)/Makefile
-include units
-include directories

PHONY += kspliced-units kspliced-list

kspliced-dirs := $(sort $(foreach u,$(KSPLICED_UNITS),$(firstword $(subst :, ,$(u)))))
kspliced-units: $(addprefix kspliced-in/,$(kspliced-dirs))

PHONY += $(addprefix kspliced-in/,$(kspliced-dirs))

$(addprefix kspliced-in/,$(kspliced-dirs)): kspliced-in/%:
	$(Q)$(MAKE) $(build)=$* $(foreach u,$(KSPLICED_UNITS),$(if $(filter $*,$(firstword $(subst :, ,$(u)))),$(lastword $(subst :, ,$(u)))))

# It generates a header that every unit there reads, and is in no headers package.
kspliced-genheaders := scripts/selinux/genheaders
ifneq ($(wildcard $(abs_srctree)/$(kspliced-genheaders)/Makefile),)
PHONY += kspliced-genheaders
kspliced-in/security/selinux: kspliced-genheaders
kspliced-genheaders:
	$(Q)$(MAKE) $(build)=$(kspliced-genheaders)
endif

# Some of an architecture's directories (lib, pci, power) are named to the top Makefile only.
kspliced-arch := arch/$(SRCARCH)
kspliced-named = $(patsubst %/,%,$(filter $(kspliced-arch)/%/,$(core-y) $(libs-y) $(drivers-y) $(drivers-m)))

PHONY += $(addprefix kspliced-at/,$(KSPLICED_DIRS))

kspliced-list: $(addprefix kspliced-at/,$(KSPLICED_DIRS))

$(addprefix kspliced-at/,$(KSPLICED_DIRS)): kspliced-at/%:
	@$(MAKE) -s -f $(KSPLICED_LIST) obj=$* 2>&1 || echo $* failed
	@$(if $(filter $*,$(kspliced-arch)),echo $* down $(kspliced-named),:)

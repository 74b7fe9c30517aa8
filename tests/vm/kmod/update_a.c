// SPDX-License-Identifier: GPL-2.0-or-later
#define NEW_VALUE 2000
#include "update.h"

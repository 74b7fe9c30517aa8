// SPDX-License-Identifier: GPL-2.0-or-later
#define NEW_VALUE 3000
#include "update.h"

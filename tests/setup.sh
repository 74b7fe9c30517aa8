#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes a Debian 12 machine ready for `make check`, `make test`, `make demo` and `make bench`:
# Debian's packages by apt, and a virtual environment, build/venv, with what Debian lacks. Where
# all of it is there already this takes under a second.
set -eu
cd "$(dirname "$0")/.."

packages="
	apt-utils bc binutils bison build-essential ca-certificates ccache chromium cpio createrepo-c dbus
	debhelper devscripts
	dh-python dkms dnf dnf-plugins-core dpkg-dev e2fsprogs fakeroot flex gcc-12 git gnupg kmod libelf-dev
	libssl-dev libxml2-utils make mmdebstrap patch pkexec polkitd pybuild-plugin-pyproject
	python3-all python3-apt python3-capstone python3-dbus-next python3-debian
	python3-hypothesis python3-pyelftools python3-pytest python3-pytest-xdist python3-rich python3-rpm python3-setuptools
	python3-systemd python3-venv qemu-system-x86 qemu-utils rpm rpmlint rsync sparse systemd universal-ctags
	util-linux xz-utils zstd
"
tools="mypy==2.4.1 ruff==0.17.6"

cache=${KSPLICED_CACHE:-/var/cache/kspliced}
export DEBIAN_FRONTEND=noninteractive

fail() {
	echo "tests/setup.sh: $*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

. /etc/os-release
[ "${ID-}:${VERSION_ID-}" = debian:12 ] ||
	fail "this is ${PRETTY_NAME-an unknown system}; the tests need Debian 12"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "the tests need the architecture amd64"

missing=
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
	[ "$status" = installed ] || missing="$missing $package"
done
# The guest and the repository are made from the archive, so apt must know it as it is now.
lists=$(find /var/lib/apt/lists -name '*Packages*' -mtime -3 -print -quit 2>/dev/null || true)
if [ -n "$missing" ] || [ -z "$lists" ]; then
	as_root apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
fi
if [ -n "$missing" ]; then
	echo "installing:$missing"
	# shellcheck disable=SC2086 # a list of words
	as_root apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
		install --no-install-recommends $missing
fi

[ -d "$cache" ] && [ -w "$cache" ] || as_root install -d -o "$(id -u)" -g "$(id -g)" "$cache"
venv=$cache/venv-$(echo "$tools $(/usr/bin/python3 --version)" | sha256sum | cut -c 1-16)
(
	flock 9
	if [ ! -e "$venv/ready" ]; then
		rm -rf "$venv"
		/usr/bin/python3 -m venv --system-site-packages "$venv"
		# shellcheck disable=SC2086 # a list of words
		"$venv/bin/pip" install --quiet --disable-pip-version-check $tools
		touch "$venv/ready"
	fi
) 9>"$cache/.venv.lock"
mkdir -p build
ln -sfn "$venv" build/venv

#!/bin/bash
# Makes the Debian packages: mtun, the daemon and the command line, and mtun-dkms, the kernel module's
# sources, which DKMS builds for each kernel of the machine.
#
#   packaging/deb.sh [DIRECTORY]
#
# They come to lie in DIRECTORY, or in target/; their names are printed, mtun's first. MTUN_PROGRAMS
# names a directory with mtund and mtun that are built already; else they are built for release.
# MTUN_VERSION is the version of mtun's package, if it is not that of the sources.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
into="$(mkdir -p "${1:-$target}" && cd "${1:-$target}" && pwd)"
programs="${MTUN_PROGRAMS:-}"
if [ -z "$programs" ]; then
    cargo build --release --locked --bins
    programs="$target/release"
fi
version="${MTUN_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}"
architecture="$(dpkg --print-architecture)"

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
put() { # put MODE FILE PLACE
    install -D -m "$1" "$2" "$root/$3"
}
put 0755 "$programs/mtund" usr/sbin/mtund
put 0755 "$programs/mtun" usr/bin/mtun
strip --strip-unneeded "$root/usr/sbin/mtund" "$root/usr/bin/mtun"
# What the program says of itself, for shells and for man.
"$programs/mtun" completions bash | install -D -m 0644 /dev/stdin \
    "$root/usr/share/bash-completion/completions/mtun"
"$programs/mtun" completions zsh | install -D -m 0644 /dev/stdin \
    "$root/usr/share/zsh/vendor-completions/_mtun"
"$programs/mtun" completions fish | install -D -m 0644 /dev/stdin \
    "$root/usr/share/fish/vendor_completions.d/mtun.fish"
"$programs/mtun" man "$root/pages" >/dev/null
"$programs/mtund" --man >"$root/pages/mtund.8"
for page in "$root"/pages/*; do
    install -D -m 0644 "$page" "$root/usr/share/man/man${page##*.}/$(basename "$page")"
done
rm -r "$root/pages"
gzip -9n "$root"/usr/share/man/man?/*
put 0644 packaging/systemd/mtund.service lib/systemd/system/mtund.service
put 0644 packaging/systemd/run-mtun.pins.mount lib/systemd/system/run-mtun.pins.mount
put 0644 packaging/systemd/mtund.default etc/default/mtund
put 0644 packaging/systemd/networkd.conf lib/systemd/networkd.conf.d/50-mtun.conf
install -d -m 0755 "$root/etc/mtun"
install -d -m 0700 "$root/etc/mtun/keys"
for page in README.md docs/*.md; do
    put 0644 "$page" "usr/share/doc/mtun/$(basename "$page")"
done
for example in examples/*.kdl examples/cdn.txt; do
    put 0644 "$example" "usr/share/doc/mtun/examples/$(basename "$example")"
done
for example in examples/site.d/*.kdl; do
    put 0644 "$example" "usr/share/doc/mtun/examples/site.d/$(basename "$example")"
done
{
    echo "Licensed as you like under either of"
    echo
    cat LICENSE-MIT
    echo
    echo "or the Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0"
} >"$root/copyright"
put 0644 "$root/copyright" usr/share/doc/mtun/copyright
rm "$root/copyright"

install -d "$root/DEBIAN"
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/" packaging/debian/control.in \
    >"$root/DEBIAN/control"
echo /etc/default/mtund >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 0755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
package="$into/mtun_${version}_$architecture.deb"
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"

# The module: nothing is built here, and nothing of it is this machine's.
rm -rf "$root"
mkdir -m 0755 "$root"
module="$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' kmod-mtun/dkms.conf)"
sources="usr/src/kmod-mtun-$module"
for file in dkms.conf Kbuild Makefile LICENSE-GPL-2.0 kmod-mtun/*.[ch] kmod-mtun/uapi/*.h; do
    file="${file#kmod-mtun/}"
    put 0644 "kmod-mtun/$file" "$sources/$file"
done
put 0644 kmod-mtun/README.md usr/share/doc/mtun-dkms/README.md
printf 'GPL-2.0-only: /usr/share/common-licenses/GPL-2\n' >"$root/copyright"
put 0644 "$root/copyright" usr/share/doc/mtun-dkms/copyright
rm "$root/copyright"
install -d "$root/DEBIAN"
sed "s/@VERSION@/$module/" packaging/debian/dkms/control.in >"$root/DEBIAN/control"
for script in postinst prerm; do
    sed "s/@VERSION@/$module/" "packaging/debian/dkms/$script" >"$root/DEBIAN/$script"
    chmod 0755 "$root/DEBIAN/$script"
done
package="$into/mtun-dkms_${module}_all.deb"
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"

#!/bin/sh
# Builds the object that is checked in beside the source: ./build.sh [where to]
#
# The same compiler gives the same octets, wherever the source lies. The object that is checked in
# was built by the clang named in `mtun.bpf.clang`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/mtun.bpf.o}
cd "$here"
clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -fdebug-compilation-dir=. \
    -I/usr/include/"$(uname -m)"-linux-gnu -c mtun.bpf.c -o "$out"
# The maps need BTF; nobody needs DWARF.
llvm-strip -g "$out"

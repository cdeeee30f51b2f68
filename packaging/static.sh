#!/bin/bash
# Builds static programs: no library of the machine is needed, so that they run on anything of that
# processor, OpenWrt and initial RAM disks included.
#
#   packaging/static.sh DIRECTORY [TARGET]
#
# TARGET is x86_64-unknown-linux-musl if not said; rustup has to know it, and for another processor
# there has to be a linker, as CARGO_TARGET_<TARGET>_LINKER says. Each program has a budget of octets,
# which is checked: what has grown beyond it is a decision and not an accident.
set -euo pipefail
cd "$(dirname "$0")/.."
into="$(mkdir -p "$1" && cd "$1" && pwd)"
target="${2:-x86_64-unknown-linux-musl}"
declare -A budgets=([mtund]=$((16 << 20)) [mtun]=$((8 << 20)))

rustup target list --installed | grep -qx "$target" || rustup target add "$target"
for program in mtund mtun; do
    # A router has no use for symbols, and its flash is small: what is here of the programs themselves is
    # compiled in one piece, which leaves out what is there twice, and relocations are packed.
    CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo rustc --release --locked --bin "$program" --target "$target" \
        --config profile.release.package.mtun.codegen-units=1 \
        -- -C strip=symbols -C link-arg=-Wl,-z,pack-relative-relocs
    file="${CARGO_TARGET_DIR:-target}/$target/release/$program"
    budget="${budgets[$program]}"
    size="$(stat -c %s "$file")"
    ! readelf --program-headers "$file" | grep -q INTERP || {
        echo "static: $program asks for a loader" >&2
        exit 1
    }
    echo "goal static-$program-octets $size <= $budget $([ "$size" -le "$budget" ] && echo met || echo missed)"
    [ "$size" -le "$budget" ] || exit 1
    install -m 0755 "$file" "$into/$program"
done

#!/usr/bin/env bash
# Plants one bug after the other in a copy of the source tree, and looks for it with the simulation: a bug that is not found is
# a hole of the model.
#
#   planted.sh [--seeds N] [--jobs J] [BUG...]     default: 400 seeds, as many jobs as cores, every bug of planted/
#
# Each planted/BUG.patch says in its first line which promise it breaks. For each bug: the seed that found it first, and what
# the simulation said. Fails if a patch does not apply or does not compile, or if its bug is not found; and first of all if the
# tree as it is fails. Takes about a minute per bug. CARGO names another cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."

seeds=400
jobs=$(nproc)
bugs=()
while (($#)); do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
        *) bugs+=("$1"); shift ;;
    esac
done
if ((${#bugs[@]} == 0)); then
    for patch in broker/sim/planted/*.patch; do
        bugs+=("$(basename "$patch" .patch)")
    done
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target/planted
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory "$copy"

# build NAME: the simulation of the copy.
build() {
    (cd "$copy" && "${CARGO:-cargo}" build --quiet --profile quick --package ringyard-sim --bin sim) >"$copy/build" 2>&1 && return
    printf '%-32s does not compile\n' "$1"
    grep -m 1 -A 6 '^error' "$copy/build" || true
    return 1
}

# simulate: runs the seeds; says what the first failure was. True if all passed. A panic ends the run: that is a failure too.
simulate() {
    "$CARGO_TARGET_DIR/quick/sim" --seeds "$seeds" --jobs "$jobs" >"$copy/run" 2>&1 && return
    grep --text -m 1 '^seed [0-9]*, round' "$copy/run" || grep --text -E 'panicked at|^in seed' -A 1 "$copy/run" | head -4
    return 1
}

build 'the tree as it is'
if ! said=$(simulate) && [[ $said == *seed* ]]; then
    printf 'without a bug: %s\n' "$said"
    exit 1
fi
missed=()
for bug in "${bugs[@]}"; do
    patch=$PWD/broker/sim/planted/$bug.patch
    if ! (cd "$copy" && git apply "$patch"); then
        printf '%-32s does not apply\n' "$bug"
        missed+=("$bug")
        continue
    fi
    if ! build "$bug"; then
        missed+=("$bug")
    elif said=$(simulate); then
        printf '%-32s NOT FOUND in %d seeds\n' "$bug" "$seeds"
        missed+=("$bug")
    else
        printf '%-32s %s\n' "$bug" "${said:0:300}"
    fi
    (cd "$copy" && git apply --reverse "$patch")
done
printf '%d found, %d not\n' $((${#bugs[@]} - ${#missed[@]})) ${#missed[@]}
((${#missed[@]} == 0))

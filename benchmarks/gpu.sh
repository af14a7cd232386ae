#!/usr/bin/env bash
# What only a GPU can tell, in stages of less than nine minutes each, to be run one after the other or again:
#   benchmarks/gpu.sh tests                the tests marked gpu
#   benchmarks/gpu.sh onnx                 onnxruntime beside torch, and which provider runs which nodes
#   benchmarks/gpu.sh train RECIPE KEY=VALUE...       fit, train and evaluate on val, into $OUT/RECIPE
#   benchmarks/gpu.sh evaluate RECIPE N KEY=VALUE...  everything refitted in N folds, with the recipe's other operators
# Of operators on fields, operator.minutes=7 keeps a training within a stage; a fit that is there is not made again.
# Results go to $OUT (default: gpu_results); cohorts are looked for in $NFOPS_DATA, then carry/, then ../shared/data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
for folder in carry ../shared/data; do
    if [ -z "${NFOPS_DATA:-}" ] && [ -d "$folder" ]; then export NFOPS_DATA="$PWD/$folder"; fi
done
out=${OUT:-gpu_results}
device=${DEVICE:-cuda}
mkdir -p "$out"
nfops() { python3 -m nfops "$@" --device "$device"; }

case "${1:-}" in
    tests) python3 -m pytest -q -m gpu -p no:cacheprovider ;;
    onnx) python3 benchmarks/onnx_speed.py --device "$device" --json "$out/onnx.json" ;;
    train)
        recipe=$2 settings=(--bundle "$out/$2")
        for setting in "${@:3}"; do settings+=(--set "$setting"); done
        [ -e "$out/$recipe/manifest.json" ] || nfops fit-inr -r "$recipe" "${settings[@]}"
        case $recipe in *_latent) nfops encode -r "$recipe" "${settings[@]}" --force ;; esac
        nfops train-operator -r "$recipe" "${settings[@]}" --force
        nfops evaluate -r "$recipe" "${settings[@]}" --split val --no-ridge --out-dir "$out/$recipe.val" --force
        ;;
    evaluate)
        recipe=$2 folds=$3 settings=()
        for setting in "${@:4}"; do settings+=(--set "$setting"); done
        site=$(mktemp -d)  # of plugins, which are found by their metadata; built by hatchling, without a network
        python3 -m pip install -q --no-deps --no-index --no-build-isolation --target "$site" plugins/nfops-{unet,fno}
        export PYTHONPATH="$site:$PYTHONPATH"
        nfops evaluate -r "$recipe" --folds "$folds" --operators all "${settings[@]}" --out-dir "$out/$recipe.folds" --force
        ;;
    *) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

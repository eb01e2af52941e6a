#!/usr/bin/env bash
# bash benchmarks/gpu.sh: what only a machine with a GPU can tell, in under eight minutes (docs/research/performance.md).
#
#   bash benchmarks/gpu.sh                     on the GPU
#   DEVICE=cpu bash benchmarks/gpu.sh --quick  every part, tiny, where there is none: it shows that the script works
#
# Each part has its own limit of time; one that fails or runs into it is reported and does not stop the next. Writes
# gpu_results.json and gpu.log into $OUT, if it is set, else beside this script. Needs no network.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
started=$SECONDS
quick=${1:-}
out=${OUT:-benchmarks}
PYTHON=${PYTHON:-python3}
export DEVICE=${DEVICE:-cuda} PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # for deterministic kernels, with which Lightning sets it, too
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} NO_ALBUMENTATIONS_UPDATE=1 PYTHONUNBUFFERED=1
work=$(mktemp -d) || exit 1
export SOLDER_VAE_CACHE=$work/cache
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
rm -f "$out/gpu_results.json" "$out/gpu.log"
[[ $quick ]] && slack=5 || slack=1 # a machine for tests may be busy
total=$((345 * slack))             # seconds for all before part runs, which has at least two minutes

part() { # part NAME SECONDS [ARGUMENTS]: one part of the package benchmarks.gpu
  local name=$1 limit=$((slack * $2)) left=$((total - SECONDS + started)) begun=$SECONDS status=0
  shift 2
  ((limit > left)) && limit=$left
  if ((limit < 5)); then
    echo "== $name: left out, no time is left"
    echo "$name" >>"$work/failed"
    return
  fi
  echo "== $name, at most $limit s"
  # Without --foreground timeout ends the part's own processes with it.
  timeout --kill-after=5 "$limit" "$PYTHON" -m benchmarks.gpu "$name" --out "$out/gpu_results.json" --work "$work" \
    --until $(($(date +%s) + limit - 6)) $quick "$@" || status=$?
  if ((status == 124 || status == 137)); then
    echo "== $name: STOPPED after $limit s"
  elif ((status)); then
    echo "== $name: FAILED, exit status $status, after $((SECONDS - begun)) s"
  else
    echo "== $name: done in $((SECONDS - begun)) s"
  fi
  ((status)) && echo "$name" >>"$work/failed"
  return 0
}

parts() {
  local count processes=(1 8 16 50)
  [[ $quick ]] && processes=(2)
  part facts 40
  [[ -e $out/gpu_results.json ]] || return 1 # there is no such device
  part render 75 & # the images that later parts read; beside parts that are not timed
  part checks 75
  wait
  part commands 75
  part steps 60
  part scores 30
  for count in "${processes[@]}"; do part processes 45 --count "$count"; done
  total=$((465 * slack))
  part runs 450
  total=$((478 * slack))
  part summary 20
  count=$(cat "$work/failed" 2>/dev/null | wc -l)
  echo "== all in $((SECONDS - started)) s, $count parts not done; $out/gpu_results.json"
  return $((count > 0))
}

parts 2>&1 | tee "$out/gpu.log"
exit "${PIPESTATUS[0]}"

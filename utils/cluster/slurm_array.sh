#!/usr/bin/env bash
# A study as a Slurm array: each task computes one shard, with a ledger of its own.
#
#   sbatch --array=0-15 utils/cluster/slurm_array.sh IMAGE.sif INPUT OUTPUT [options of oncofm batch]
#   oncofm merge OUTPUT/shard-* -o OUTPUT/merged          # when all tasks are done
#
# INPUT is a folder, or a table of what lies in the table's own folder.
#
# On GPUs one shard each: --gres=gpu:1; or, where nodes are given whole, a task of srun per GPU, with
# the settings that are #SBATCH lines below, since a wrapped script's are not read:
#
#   sbatch --array=0-3 --gres=gpu:4 --ntasks-per-node=4 --cpus-per-task=8 --mem=64G --time=12:00:00 \
#       --signal=TERM@120 --requeue --open-mode=append --wrap "srun --cpus-per-task=8 \
#       --kill-on-bad-exit=0 utils/cluster/slurm_array.sh IMAGE.sif INPUT OUTPUT"
#
# A task that was preempted goes on where it was; so does one that was ended by its time limit, when
# it is submitted again. To submit tasks 3 and 7 of sixteen again:
#
#   ONCOFM_SHARDS=16 sbatch --array=3,7 utils/cluster/slurm_array.sh IMAGE.sif INPUT OUTPUT
#
# OUTPUT may lie on a shared file system: only the files that are done are copied there. The ledger
# needs a local disk ($SLURM_TMPDIR or /tmp), because locks on network file systems fail. The copy is
# made when the task ends, so a node that fails loses what its task had computed since it started:
# rather many short tasks than a few long ones (--array=0-255%16). After SIGTERM the cases in hand are
# finished, or given up after ONCOFM_GRACE_S (20): copying has to end within the site's KillWait (30 s).
#SBATCH --job-name=oncofm
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

image=$1 input=$(realpath "$2") output=$3
shift 3
index=${SLURM_ARRAY_TASK_ID:?run this as an array: sbatch --array=0-15}
if [ -n "${ONCOFM_SHARDS:-}" ]; then
    first=0 count=$ONCOFM_SHARDS
else
    first=${SLURM_ARRAY_TASK_MIN:-0} count=${SLURM_ARRAY_TASK_COUNT:?}
    if [ "${SLURM_ARRAY_TASK_MAX:-$((first + count - 1))}" -ne $((first + count - 1)) ]; then
        echo "the array has gaps: say how many shards there are, ONCOFM_SHARDS=16 sbatch ..." >&2
        exit 1
    fi
fi
per_index=${SLURM_STEP_NUM_TASKS:-1}    # tasks of srun
number=$(((index - first) * per_index + (per_index > 1 ? SLURM_PROCID : 0)))
count=$((count * per_index))
shard=$(printf 'shard-%05d-of-%05d' "$number" "$count")

mkdir -p "$output"
output=$(realpath "$output")
kept=$output/$shard new=$output/.$shard.new old=$output/.$shard.old
if [ -d "$old" ] && [ ! -d "$kept" ]; then mv "$old" "$kept"; fi    # killed between two renames
mkdir -p "$kept"
local=$(mktemp -d "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/oncofm.XXXXXX")

keep() {    # in place of what was there: with a log of another state SQLite spoils a ledger
    trap '' TERM    # Slurm sends it to every process, cp too
    if rm -rf "$new" "$old" && cp -a "$local/$shard" "$new" && mv "$kept" "$old" && mv "$new" "$kept"
    then
        rm -rf "$old" "$local"
    else
        echo "the results could not be copied to $kept, they are in $local on $(hostname)" >&2
        exit 1
    fi
}
stop() {
    trap '' TERM
    status=143
    if [ -n "${!:-}" ]; then
        kill -TERM "$!" 2>/dev/null || true
        wait "$!" && status=0 || status=$?
    fi
    exit "$status"
}
trap 'rm -rf "$local"' EXIT
trap stop TERM
cp -a "$kept" "$local/$shard"
trap keep EXIT

gpu=()
if [ -n "${SLURM_JOB_GPUS:-}${CUDA_VISIBLE_DEVICES:-}" ]; then gpu=(--nv); fi
IFS=, read -ra cards <<<"${CUDA_VISIBLE_DEVICES:-}"
if [ "${#cards[@]}" -gt 0 ]; then    # the container starts without our environment
    export APPTAINERENV_CUDA_VISIBLE_DEVICES="${cards[${SLURM_LOCALID:-0} % ${#cards[@]}]}"
fi
study=$input
if [ -f "$input" ]; then study=$(dirname "$input"); fi    # a table, and what it names beside it
timeout --kill-after="${ONCOFM_GRACE_S:-20}" 0 \
    "${APPTAINER:-apptainer}" exec --containall --no-home --net --network none "${gpu[@]}" \
    --bind "$study:$study:ro" --bind "$local:$local" "$image" \
    oncofm batch "$input" "$local/$shard" --resume --shard "$number/$count" \
    --workers "${SLURM_CPUS_PER_TASK:-2}" "$@" &
wait "$!"

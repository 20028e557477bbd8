#!/usr/bin/env bash
# A study as a Slurm array: each task computes one shard, with a ledger of its own.
#
#   sbatch --array=0-15 utils/cluster/slurm_array.sh IMAGE.sif INPUT OUTPUT [options of oncofm batch]
#   oncofm merge OUTPUT/shard-* -o OUTPUT/merged          # when all tasks are done
#
# On GPUs one shard each: --gres=gpu:1; or, where nodes are given whole, a task of srun per GPU:
#
#   sbatch --array=0-3 --gres=gpu:4 --ntasks-per-node=4 --signal=TERM@120 \
#       --wrap "srun utils/cluster/slurm_array.sh IMAGE.sif INPUT OUTPUT"
#
# A task that was ended by its time limit or by preemption goes on where it was: submit again.
# OUTPUT may lie on a shared file system: only the files that are done are copied there. The ledger
# needs a local disk ($SLURM_TMPDIR or /tmp), because locks on network file systems fail.
#SBATCH --job-name=oncofm
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

image=$1 input=$(realpath "$2") output=$3
shift 3
index=${SLURM_ARRAY_TASK_ID:?run this as an array: sbatch --array=0-15}
first=${SLURM_ARRAY_TASK_MIN:-0}
count=${SLURM_ARRAY_TASK_COUNT:?}
per_index=${SLURM_STEP_NUM_TASKS:-1}    # tasks of srun
number=$(((index - first) * per_index + (per_index > 1 ? SLURM_PROCID : 0)))
count=$((count * per_index))
shard=$(printf 'shard-%05d-of-%05d' "$number" "$count")

mkdir -p "$output"
output=$(realpath "$output")
local=$(mktemp -d "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/oncofm.XXXXXX")
keep() { cp -a "$local/$shard/." "$output/$shard/" && rm -rf "$local"; }
mkdir -p "$output/$shard" "$local/$shard"
cp -a "$output/$shard/." "$local/$shard/"
trap keep EXIT
trap 'kill -TERM "$job" 2>/dev/null; wait "$job"' TERM

gpu=()
if [ -n "${SLURM_JOB_GPUS:-}${CUDA_VISIBLE_DEVICES:-}" ]; then gpu=(--nv); fi
IFS=, read -ra cards <<<"${CUDA_VISIBLE_DEVICES:-}"
if [ "${#cards[@]}" -gt 0 ]; then    # the container starts without our environment
    export APPTAINERENV_CUDA_VISIBLE_DEVICES="${cards[${SLURM_LOCALID:-0} % ${#cards[@]}]}"
fi
"${APPTAINER:-apptainer}" exec --containall --no-home --net --network none "${gpu[@]}" \
    --bind "$input:$input:ro" --bind "$local:$local" "$image" \
    oncofm batch "$input" "$local/$shard" --resume --shard "$number/$count" \
    --workers "${SLURM_CPUS_PER_TASK:-2}" "$@" &
job=$!
wait "$job"

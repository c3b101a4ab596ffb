#!/bin/sh
#SBATCH --job-name=xe-scenarios
#SBATCH --array=1-4
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --requeue
#
# Scenarios in an array of four, in a folder that all nodes have; vfio-user-xe is on PATH and its guest environment is fetched.
#
#   job=$(sbatch --parsable slurm.sh)
#   sbatch --dependency=afterany:"$job" --wrap 'vfio-user-xe report merge shard-*/ --html report.html --junit report.xml'
#
# A task that is requeued takes up where it ended.
exec vfio-user-xe scenario run ${SCENARIOS:-} --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --output "shard-$SLURM_ARRAY_TASK_ID" --resume

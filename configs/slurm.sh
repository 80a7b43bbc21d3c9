#!/bin/bash
# Several machines with Slurm, FSDP 2 over all their GPUs:
#   sbatch --nodes 2 --gpus-per-node 8 configs/slurm.sh runs/mine
# Put the run folder, the cache (LANGADAPT_CACHE) and this project where every machine can read them.
#SBATCH --job-name=langadapt
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
set -euo pipefail

run=${1:?usage: sbatch configs/slurm.sh RUN}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=${SLURM_GPUS_ON_NODE:-8}
export first gpus run

# One launcher per machine starts one process per GPU.
srun bash -c 'accelerate launch \
  --config_file configs/fsdp.yaml \
  --num_machines "$SLURM_NNODES" \
  --num_processes "$((SLURM_NNODES * gpus))" \
  --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$first" \
  --main_process_port 29500 \
  -m langadapt_utils.training "$run"'
